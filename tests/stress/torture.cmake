# Two halves, for together they still find faults (docs/limits.md, "What is not right yet"): with clones
# nobody is killed or stopped, and with kills and stops nobody clones. By hand: without the variables.
# Not for ThreadSanitizer, whose runtime does not survive threads in a child of fork.
morsel_test(NAME stress_torture LABELS torture TIMEOUT 4200
            SOURCES torture_test.c torture_worker.c torture_ledger.c ../core/object_support.c)
set_tests_properties(stress_torture PROPERTIES
  ENVIRONMENT "MORSEL_TORTURE_WITHOUT=clone,splice")
add_test(NAME stress_torture_clones COMMAND stress_torture)
set_tests_properties(stress_torture_clones PROPERTIES LABELS torture TIMEOUT 4200
  ENVIRONMENT "MORSEL_TORTURE_CALM=1;MORSEL_TORTURE_WITHOUT=splice")
if(NOT MORSEL_NO_SKIPS)
  set_tests_properties(stress_torture_clones PROPERTIES SKIP_RETURN_CODE 77)
endif()

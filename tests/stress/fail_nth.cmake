include(${PROJECT_SOURCE_DIR}/tests/support/fail_nth.cmake)
morsel_test(NAME stress_fail_nth SOURCES fail_nth_test.c fail_nth_backend.c fail_nth_carrier.c fail_nth_clone.c fail_nth_compact.c
  fail_nth_dump.c fail_nth_observe.c fail_nth_pager.c fail_nth_swap.c ../support/fail_nth.c
  ARGS $<TARGET_FILE:morsel> LABELS stress TIMEOUT 900)
target_link_options(stress_fail_nth PRIVATE ${FAIL_NTH_LINK_OPTIONS})
# One thread at a time, and ten times as slow under ThreadSanitizer: nothing for that stage.
if(MORSEL_SANITIZE MATCHES thread)
  set_tests_properties(stress_fail_nth PROPERTIES LABELS unit)
endif()

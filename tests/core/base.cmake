morsel_test(NAME core_base SOURCES base_test.c LABELS unit threads)
add_test(NAME core_frame_freestanding COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/frame_freestanding.sh
  $<TARGET_FILE:morsel_static> ${MORSEL_SANITIZE})
set_tests_properties(core_frame_freestanding PROPERTIES LABELS unit SKIP_RETURN_CODE 77)

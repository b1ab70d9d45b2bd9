morsel_test(NAME stress_frame_threads SOURCES frame_threads_test.c LABELS stress)

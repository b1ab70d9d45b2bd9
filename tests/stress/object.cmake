morsel_test(NAME stress_object_kill SOURCES object_kill_test.c ../core/object_support.c LABELS stress
            TIMEOUT 1800)
morsel_test(NAME stress_object_threads SOURCES object_threads_test.c ../core/object_support.c
            LABELS stress)
morsel_test(NAME stress_object_fill SOURCES object_fill_test.c ../core/object_support.c LABELS stress)

morsel_test(NAME stress_object_kill SOURCES object_kill_test.c ../core/object_support.c LABELS stress
            TIMEOUT 1800)

morsel_test(NAME stress_pool_kill SOURCES pool_kill_test.c ../core/pool_double.c LABELS stress
            TIMEOUT 900)

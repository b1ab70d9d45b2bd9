morsel_test(NAME stress_torture LABELS stress TIMEOUT 4200
            SOURCES torture_test.c torture_worker.c torture_ledger.c ../core/object_support.c)

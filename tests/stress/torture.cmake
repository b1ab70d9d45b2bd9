# Everything at once. Not for ThreadSanitizer, whose runtime does not survive threads in a child of fork.
# For looking into something: the variables in torture.h and torture_test.c.
morsel_test(NAME stress_torture LABELS torture TIMEOUT 4200
            SOURCES torture_test.c torture_worker.c torture_ledger.c ../core/object_support.c)

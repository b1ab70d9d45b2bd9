morsel_test(NAME core_pool_unit SOURCES pool_test.c pool_double.c LABELS unit)
morsel_test(NAME core_pool_bad SOURCES pool_bad_test.c pool_double.c LABELS unit)
morsel_test(NAME core_pool_process SOURCES pool_process_test.c pool_double.c LABELS unit threads)

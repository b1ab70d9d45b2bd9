morsel_test(NAME core_base SOURCES base_test.c LABELS unit)

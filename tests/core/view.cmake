morsel_test(NAME core_view_unit SOURCES view_test.c view_support.c LABELS unit)

morsel_test(NAME core_compact_plan SOURCES compact_plan_test.c LABELS unit)
morsel_test(NAME core_object_compact SOURCES object_compact_test.c object_support.c LABELS unit)
morsel_test(NAME core_object_format SOURCES object_format_test.c object_support.c LABELS unit)

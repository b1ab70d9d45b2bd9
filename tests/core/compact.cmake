morsel_test(NAME core_compact_plan SOURCES compact_plan_test.c LABELS unit)

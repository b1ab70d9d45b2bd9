morsel_test(NAME core_table_unit SOURCES table_test.c table_memory.c LABELS unit)
morsel_test(NAME core_table_hostile SOURCES table_hostile_test.c table_memory.c LABELS unit)
morsel_test(NAME core_table_death SOURCES table_death_test.c table_memory.c LABELS unit)
morsel_test(NAME core_table_threads SOURCES table_threads_test.c table_memory.c LABELS stress)

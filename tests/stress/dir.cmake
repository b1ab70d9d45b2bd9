morsel_test(NAME stress_dir LABELS stress SOURCES dir_stress_test.c)

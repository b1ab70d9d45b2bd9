# Swap targets: compressed memory, files, failures, death.
morsel_test(NAME core_swap_unit SOURCES swap_test.c pool_double.c LABELS unit)
morsel_test(NAME core_swap_driver SOURCES swap_driver_test.c LABELS unit)

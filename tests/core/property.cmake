# Properties of frames: against a model, with death, growth while others read, and every interleaving.
include(${PROJECT_SOURCE_DIR}/tests/support/explore.cmake)
morsel_test(NAME core_property_unit SOURCES property_test.c pool_double.c LABELS unit)
morsel_explore_test(NAME core_property_explore SOURCES property_explore_test.c LABELS unit)
morsel_test(NAME core_zero_unit SOURCES zero_test.c pool_double.c LABELS unit)

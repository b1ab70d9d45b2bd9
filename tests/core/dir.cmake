# Cells, the directory of names, and the interleaving explorer that its tests use.
include(${PROJECT_SOURCE_DIR}/tests/support/explore.cmake)

morsel_explore_test(NAME support_explore_unit LABELS unit SOURCES ../support/explore_test.c)
morsel_test(NAME core_dir_unit LABELS unit SOURCES dir_test.c)

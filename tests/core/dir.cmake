# Cells, the directory of names, and the interleaving explorer that its tests use.
include(${PROJECT_SOURCE_DIR}/tests/support/explore.cmake)

morsel_explore_test(NAME support_explore_unit LABELS unit SOURCES ../support/explore_test.c)
morsel_test(NAME core_dir_unit LABELS unit SOURCES dir_test.c)
morsel_explore_test(NAME core_dir_explore LABELS unit SOURCES dir_explore_test.c
                    CODE pool/cell.c pool/dir.c pool/dir_check.c pool/dir_walk.c pool/dirent.c
                    TIMEOUT 1800)

morsel_test(NAME core_view_unit SOURCES view_test.c view_support.c LABELS unit)
morsel_test(NAME core_view_backend SOURCES view_backend_test.c view_support.c LABELS unit)
morsel_test(NAME core_view_fail SOURCES view_fail_test.c view_support.c LABELS unit)
target_link_options(core_view_fail PRIVATE -Wl,--wrap=mmap,--wrap=madvise,--wrap=malloc
                    -Wl,--wrap=calloc,--wrap=realloc)
morsel_test(NAME core_view_hugetlb SOURCES view_hugetlb_test.c view_support.c LABELS unit)
morsel_test(NAME core_view_mailbox SOURCES view_mailbox_test.c view_support.c LABELS unit threads)
morsel_test(NAME core_view_registry SOURCES view_registry_test.c object_support.c LABELS unit threads)

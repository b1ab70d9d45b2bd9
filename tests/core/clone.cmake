morsel_test(NAME core_object_clone SOURCES object_clone_test.c object_support.c LABELS unit)
morsel_test(NAME core_object_clone_view SOURCES object_clone_view_test.c object_support.c
            LABELS unit)
morsel_test(NAME core_object_clone_death SOURCES object_clone_death_test.c object_support.c
            LABELS unit)

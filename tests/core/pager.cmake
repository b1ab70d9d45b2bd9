# The rooms above and beside (retarget, registry, mail) are doubles here: what they ask and answer is
# wrapped, so that descriptors, faults and elections are tested alone.
set(pager_wraps mrs_fault mrs_registry_each mrs_registry_family mrs_evict_serve mrs_evictor_tick
    mrs_evictor_bell mrs_mail_answer)
list(TRANSFORM pager_wraps PREPEND "-Wl,--wrap=")
morsel_test(NAME core_view_uffd SOURCES view_uffd_test.c view_support.c LABELS unit)
target_link_options(core_view_uffd PRIVATE -Wl,--wrap=mrs_fault)
morsel_test(NAME core_view_pager SOURCES view_pager_test.c pager_herd.c view_support.c LABELS unit)
target_link_options(core_view_pager PRIVATE ${pager_wraps})

# All rooms together.
morsel_test(NAME core_view_evict SOURCES view_evict_test.c view_support.c LABELS unit threads)

foreach(part open import carrier fork)
  morsel_test(NAME core_object_${part} SOURCES object_${part}_test.c object_support.c LABELS unit)
endforeach()
foreach(part size name)
  morsel_test(NAME core_object_${part} SOURCES object_${part}_test.c object_support.c
              LABELS unit threads)
endforeach()
morsel_test(NAME core_object_death SOURCES object_death_test.c object_support.c LABELS unit)
foreach(part retarget retarget_death)
  morsel_test(NAME core_object_${part} SOURCES object_${part}_test.c object_support.c
              object_window.c LABELS unit threads)
endforeach()
# Not for ThreadSanitizer, which does not know that a fault orders mmap() in another thread.
morsel_test(NAME core_object_fault SOURCES object_fault_test.c object_support.c object_window.c
            LABELS unit)
morsel_test(NAME core_object_evict SOURCES object_evict_test.c object_support.c LABELS unit threads)
morsel_test(NAME core_object_budget SOURCES object_budget_test.c object_support.c LABELS unit)
# Stops threads at probes. Not for ThreadSanitizer, as core_object_fault.
if(MORSEL_PROBES)
  morsel_test(NAME core_object_edge SOURCES object_edge_test.c object_support.c
              object_device.c ../contract/software_target.c LABELS unit)
  target_link_options(core_object_edge PRIVATE -Wl,--wrap=mrs_probe_hit,--wrap=mmap
                      -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=dlopen)
endif()

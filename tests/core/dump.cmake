foreach(part dump dump_bad dump_evict observe)
  morsel_test(NAME core_object_${part} SOURCES object_${part}_test.c object_support.c LABELS unit)
endforeach()

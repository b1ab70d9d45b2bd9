# The frame allocator: promises one by one, against a model, death, hostile metadata, interleavings.
morsel_test(NAME core_frame_unit SOURCES frame_test.c LABELS unit)
morsel_test(NAME core_frame_model SOURCES frame_model_test.c LABELS unit)
morsel_test(NAME core_frame_death SOURCES frame_death_test.c LABELS unit)
morsel_test(NAME core_frame_hostile SOURCES frame_hostile_test.c LABELS unit)

include(${PROJECT_SOURCE_DIR}/tests/support/explore.cmake)
set(frame_code frame/get.c frame/huge.c frame/init.c frame/put.c frame/death.c frame/search.c
    frame/look.c)
morsel_explore_test(NAME core_frame_explore SOURCES frame_explore_test.c LABELS unit TIMEOUT 1800
  CODE ${frame_code} frame/row.c frame/claim.c)
morsel_explore_test(NAME core_frame_explore_planted_row LABELS unit
  SOURCES frame_explore_test.c frame_planted_row.c CODE ${frame_code} frame/claim.c)
morsel_explore_test(NAME core_frame_explore_planted_claim LABELS unit
  SOURCES frame_explore_test.c frame_planted_claim.c CODE ${frame_code} frame/row.c)
foreach(name row claim)
  target_compile_definitions(core_frame_explore_planted_${name} PRIVATE FRAME_PLANTED=1)
endforeach()

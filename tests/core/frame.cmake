# The frame allocator: promises one by one, against a model, death, hostile metadata, interleavings.
morsel_test(NAME core_frame_unit SOURCES frame_test.c LABELS unit)
morsel_test(NAME core_frame_model SOURCES frame_model_test.c LABELS unit)
morsel_test(NAME core_frame_death SOURCES frame_death_test.c LABELS unit)
morsel_test(NAME core_frame_hostile SOURCES frame_hostile_test.c LABELS unit)

morsel_test(NAME core_frame_model SOURCES frame_model_test.c LABELS unit)

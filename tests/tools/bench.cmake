# The benchmark programs, on small objects: that they run and say so when they cannot.
if(TARGET bench_map)
  tool_test(NAME tools_bench SCRIPT bench_test.py LABELS contract)
  set_property(TEST tools_bench APPEND PROPERTY
    ENVIRONMENT "MORSEL_BENCHMARKS=$<TARGET_FILE_DIR:bench_map>")
endif()

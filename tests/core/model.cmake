# The model room: the three formats, made by hand; the packed table and the aligned layout; all of it
# against the reader in tools/lib.
foreach(part safetensors gguf onnx packed)
  morsel_test(NAME core_model_${part} SOURCES model_${part}_test.c LABELS unit)
endforeach()
morsel_test(NAME core_model_oracle SOURCES model_oracle_test.c LABELS unit)
target_compile_definitions(core_model_oracle PRIVATE MORSEL_SOURCE_DIR="${PROJECT_SOURCE_DIR}")

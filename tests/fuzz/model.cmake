# The parsers of the model room, one fuzzer each; each also tries its input as a packed table.
foreach(format onnx safetensors gguf)
  morsel_fuzz(NAME fuzz_${format} SOURCES ${format}_fuzz.c)
endforeach()

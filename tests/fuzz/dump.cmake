morsel_fuzz(NAME fuzz_dump SOURCES dump_fuzz.c)

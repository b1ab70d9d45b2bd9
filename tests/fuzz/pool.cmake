morsel_fuzz(NAME fuzz_pool SOURCES pool_fuzz.c)

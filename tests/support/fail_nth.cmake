# The calls that tests/support/fail_nth.c can fail; a test that uses it links with these options.
set(FAIL_NTH_WRAPPED malloc calloc realloc aligned_alloc strdup mmap madvise mprotect ftruncate fallocate
    memfd_create dup fstat fstatfs fchmod fchown fsync rename unlink read pread preadv write pwrite pwritev
    sendmsg recvmsg getrandom open fcntl)
list(TRANSFORM FAIL_NTH_WRAPPED PREPEND "-Wl,--wrap=" OUTPUT_VARIABLE FAIL_NTH_LINK_OPTIONS)

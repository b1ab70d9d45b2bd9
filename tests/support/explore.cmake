# A program that explores interleavings (support/explore.h): the sources under test are compiled into
# it once more, with every atomic verb a scheduling point. CODE counts from core/. ThreadSanitizer is
# left out of them: it has nothing to see in one operating-system thread and cannot follow coroutines.
#
#   morsel_explore_test(NAME core_dir_explore SOURCES dir_explore_test.c CODE pool/dir.c LABELS unit)
include_guard(GLOBAL)

function(morsel_explore_test)
  cmake_parse_arguments(T "" "NAME;TIMEOUT" "SOURCES;CODE;LABELS" ${ARGN})
  list(TRANSFORM T_CODE PREPEND ${PROJECT_SOURCE_DIR}/core/)
  morsel_test(NAME ${T_NAME} TIMEOUT ${T_TIMEOUT} LABELS ${T_LABELS} explore
              SOURCES ${T_SOURCES} ${PROJECT_SOURCE_DIR}/tests/support/explore.c ${T_CODE})
  target_compile_definitions(${T_NAME} PRIVATE MORSEL_EXPLORE=1)
  target_compile_options(${T_NAME} PRIVATE -fno-sanitize=thread)
endfunction()

# Cells and the directory of names.
target_sources(morsel_objects PRIVATE
  ${CMAKE_CURRENT_SOURCE_DIR}/cell.c
  ${CMAKE_CURRENT_SOURCE_DIR}/dir.c
  ${CMAKE_CURRENT_SOURCE_DIR}/dir_check.c
  ${CMAKE_CURRENT_SOURCE_DIR}/dir_walk.c
  ${CMAKE_CURRENT_SOURCE_DIR}/dirent.c
  ${CMAKE_CURRENT_SOURCE_DIR}/siphash.c)

# The driver against a controller of plain memory: everywhere.
morsel_test(NAME iommu_nvme_unit SOURCES nvme_test.c nvme_fake.c LABELS unit LIBS morsel_iommu_static)
target_include_directories(iommu_nvme_unit PRIVATE ${PROJECT_SOURCE_DIR}/iommu)

# On QEMU's devices: in the lab. Pulling a device out comes last, for it is gone then.
foreach(device nvme edu)
  foreach(kind type1 iommufd)
    morsel_test(NAME iommu_${device}_lab_${kind} SOURCES ${device}_lab.c ../core/view_support.c
      LABELS lab TIMEOUT 300 ARGS ${kind} LIBS morsel_iommu_static)
  endforeach()
endforeach()
add_test(NAME iommu_nvme_unplug_lab COMMAND iommu_nvme_lab_type1 type1 unplug)
set_tests_properties(iommu_nvme_unplug_lab PROPERTIES LABELS lab TIMEOUT 120 SKIP_RETURN_CODE 77)

# Boots machines, and cuts their power.
find_package(Python3 COMPONENTS Interpreter)
if(Python3_Interpreter_FOUND)
  add_test(NAME iommu_nvme_powercut COMMAND ${Python3_EXECUTABLE} -B
    ${CMAKE_CURRENT_SOURCE_DIR}/nvme_powercut_test.py $<TARGET_FILE:iommu_nvme_lab_type1>)
  set_tests_properties(iommu_nvme_powercut PROPERTIES LABELS labhost TIMEOUT 900 RUN_SERIAL ON
    ENVIRONMENT MORSEL_SOURCE=${PROJECT_SOURCE_DIR})
endif()

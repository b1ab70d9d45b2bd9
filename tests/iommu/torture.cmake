# The torture test with a device as one of its processes.
add_executable(iommu_torture_device torture_device.c ../stress/torture_ledger.c)
target_link_libraries(iommu_torture_device PRIVATE morsel_test_support morsel_iommu_static
                      PkgConfig::CMOCKA Threads::Threads)
add_test(NAME iommu_torture_lab COMMAND stress_torture)
set_tests_properties(iommu_torture_lab PROPERTIES LABELS lab TIMEOUT 600 SKIP_RETURN_CODE 77
  REQUIRED_FILES $<TARGET_FILE:iommu_torture_device>
  ENVIRONMENT "MORSEL_TORTURE_ACTOR=$<TARGET_FILE:iommu_torture_device>;MORSEL_TORTURE_WITHOUT=clone,splice")

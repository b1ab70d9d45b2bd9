# The library over a kernel of software, and its sets.
morsel_test(NAME iommu_sets SOURCES sets_test.c LABELS unit LIBS morsel_iommu_static)
morsel_test(NAME iommu_view SOURCES view_test.c fake.c ../core/view_support.c LABELS unit threads
  LIBS morsel_iommu_static)
foreach(test iommu_sets iommu_view)
  target_include_directories(${test} PRIVATE ${PROJECT_SOURCE_DIR})
endforeach()

# Views with QEMU's edu behind them, and what happens when it is pulled out.
foreach(kind type1 iommufd)
  morsel_test(NAME iommu_view_lab_${kind} SOURCES view_lab.c ../core/view_support.c LABELS lab
    TIMEOUT 120 ARGS ${kind} LIBS morsel_iommu_static)
  morsel_test(NAME iommu_gone_lab_${kind} SOURCES view_lab.c ../core/view_support.c LABELS lab
    TIMEOUT 120 ARGS ${kind} gone LIBS morsel_iommu_static)
endforeach()

# Views with QEMU's edu behind them, and what happens when it is pulled out.
foreach(kind type1 iommufd)
  morsel_test(NAME iommu_view_lab_${kind} SOURCES view_lab.c ../core/view_support.c LABELS lab
    TIMEOUT 120 ARGS ${kind} LIBS morsel_iommu_static)
  morsel_test(NAME iommu_gone_lab_${kind} SOURCES view_lab.c ../core/view_support.c LABELS lab
    TIMEOUT 120 ARGS ${kind} gone LIBS morsel_iommu_static)
endforeach()

# The driver against a controller of plain memory: everywhere.
morsel_test(NAME iommu_nvme_unit SOURCES nvme_test.c nvme_fake.c LABELS unit LIBS morsel_iommu_static)
target_include_directories(iommu_nvme_unit PRIVATE ${PROJECT_SOURCE_DIR}/iommu)

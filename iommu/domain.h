/* A domain, as devices use it. See domain.c. */
#ifndef MRS_IOMMU_DOMAIN_H
#define MRS_IOMMU_DOMAIN_H

#include <stdint.h>

struct morsel_device;
struct morsel_domain;
struct morsel_iommu_function;
struct morsel_iommu_opts;

/* A domain without devices, of the kind that the options and the kernel permit. */
int mrs_domain_make(const struct morsel_iommu_function *function, struct morsel_iommu_opts *opts,
		    struct morsel_domain **domain);
/* It has neither devices nor views. */
void mrs_domain_free(struct morsel_domain *domain);
/* The device translates with the domain; its descriptor is set. On failure nothing has changed. */
int mrs_domain_join(struct morsel_domain *domain, struct morsel_device *device,
		    struct morsel_iommu_opts *opts);
void mrs_domain_leave(struct morsel_domain *domain, struct morsel_device *device);
/* The device is marked gone: its views lose their translations. */
void mrs_domain_lost(struct morsel_domain *domain, struct morsel_device *device);

#endif

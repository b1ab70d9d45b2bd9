/*
 * What newer kernels offer and Debian 12's headers do not name yet. Values are the kernel's; each is
 * used only where its absence at run time is answered.
 */
#ifndef MRS_BASE_COMPAT_H
#define MRS_BASE_COMPAT_H

#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008u
#endif
#ifndef MPOL_DEFAULT
#define MPOL_DEFAULT   0
#define MPOL_PREFERRED 1
#endif

#endif

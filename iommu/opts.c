/* Option and info structs that begin with their size, between versions of caller and library. */
#include <errno.h>
#include <string.h>

#include "internal.h"

int mrs_opts_in(void *to, size_t known, const void *from)
{
	size_t given = 0;

	memset(to, 0, known);
	if (!from)
		return 0;
	memcpy(&given, from, sizeof(given));
	if (given < sizeof(given))
		return morsel_fail(-EINVAL, "an option struct begins with its size; %zu is none",
				   given);
	for (size_t i = known; i < given; i++)
		if (((const unsigned char *)from)[i])
			return morsel_fail(-E2BIG, "an option is set that this library does not "
						   "know: the program needs a newer one");
	memcpy(to, from, mrs_min(given, known));
	return 0;
}

int mrs_info_out(void *to, void *info, size_t known)
{
	size_t given = 0;

	memcpy(&given, to, sizeof(given));
	if (given < sizeof(given))
		return morsel_fail(-EINVAL, "an info struct begins with its size; %zu is none",
				   given);
	memset(to, 0, given);
	memcpy(to, info, mrs_min(given, known));
	memcpy(to, &given, sizeof(given));
	return 0;
}

/*
 * morsel-quickstart: what tools/quickstart shows, once the library is built and a model is there.
 *
 *   morsel-quickstart share MODEL HASHES       see share.c
 *   morsel-quickstart squeeze MODEL HASHES     see squeeze.c
 *   morsel-quickstart table MODEL [BYTES]      see table.c
 */
#include "quickstart.h"

#include "bench.h"
#include "pages.h"
#include "probe.h"

#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	const char *dir = getenv("TMPDIR");
	uint64_t bytes = 3492 * HUGE_BYTES;

	probe_main(argc, argv);
	share_main(argc, argv);
	dir = dir && *dir ? dir : "/var/tmp";
	if (argc == 4 && !strcmp(argv[1], "share"))
		return share_model(argv[2], argv[3]);
	if (argc == 4 && !strcmp(argv[1], "squeeze"))
		return squeeze_model(argv[2], argv[3], dir);
	if ((argc == 3 || (argc == 4 && bench_parse_bytes(argv[3], &bytes))) &&
	    !strcmp(argv[1], "table"))
		return print_table(argv[2], bytes, dir);
	bench_say("usage: morsel-quickstart share MODEL HASHES | squeeze MODEL HASHES | table "
		  "MODEL [BYTES]");
	return 2;
}

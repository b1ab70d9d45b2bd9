/* Fail-the-n-th scenarios of <morsel/clone.h>. */
#include <string.h>

#include <morsel/clone.h>

#include "stress/fail_nth_scenarios.h"

/* Neither may leave a name behind when it fails, nor change its source. */
static int done(struct bench *b, int rc, struct morsel *made)
{
	rc = scenario_done(rc);
	if (!rc) {
		morsel_close(made);
		morsel_unlink(b->pool, "made");
	}
	return rc;
}

/* The witness has no writable view. */
static int act_clone(struct bench *b)
{
	struct morsel *made = NULL;
	int rc = morsel_clone(b->witness, "made", &made);

	return done(b, rc, made);
}

static int act_snapshot(struct bench *b)
{
	struct morsel *made = NULL;
	int rc = morsel_snapshot(b->witness, "made", &made);

	return done(b, rc, made);
}

const struct scenario clone_scenarios[] = {
	{"morsel_clone", act_clone},
	{"morsel_snapshot", act_snapshot},
};
const size_t clone_scenarios_count = sizeof(clone_scenarios) / sizeof(clone_scenarios[0]);

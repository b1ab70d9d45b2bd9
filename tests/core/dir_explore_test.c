/*
 * Interleavings of directory operations: every pair, from every start that matters, with at most
 * three preemptions; chosen triples; and death of either side at every verb, with the repair that a
 * reaper does. Two planted races are rediscovered, so that silence means something.
 *
 * A scenario is data: names that are there at the start, and one operation for each simulated
 * thread, which is a process of its own (a handle and a slot). The judge knows what each name may
 * mean, and counts: names at the start plus links that succeeded minus unlinks that succeeded are
 * the names at the end. Names are three characters: the first chooses the root's word, the others
 * digits below.
 */
#include <setjmp.h>
#include <stdarg.h>

#include "support/dir_memory.h"

#include <cmocka.h>

#include "support/counts.h"
#include "support/explore.h"

#define THREADS MRS_EXPLORE_THREADS_MAX

enum op_kind {
	OP_FIND,
	OP_LINK,     /* a dirent made before */
	OP_UNLINK,   /* a dirent found before; the judge frees it */
	OP_RETARGET, /* a dirent found before */
	OP_CREATE,   /* make and link */
	OP_REMOVE,   /* find, unlink, take the target away, free */
	OP_PUBLISH,  /* find, retarget */
	OP_REPLACE,  /* remove; create other with the same target: most likely in the same cell */
	OP_SWAP,     /* remove; create other with the own target */
	OP_LINK_PLANTED,    /* a link by plain store */
	OP_PUBLISH_PLANTED, /* compares the target only */
};

struct op {
	enum op_kind kind;
	const char *name;
	const char *other; /* REPLACE */
};

/* What would stand in the intent of a process that dies. */
enum intent { NONE, CREATING, UNLINKING };

struct actor {
	struct mrs_cells cells;
	struct op op;
	mrs_cell dirent; /* LINK: made before; else: found, before or by itself */
	mrs_cell target; /* the operation's own new target */
	enum intent intent;
	uint64_t note;
	bool linking; /* the dirent is made */
	int rc;
	bool unlinked, linked; /* did it happen? */
	mrs_cell seen_target;  /* FIND: found; UNLINK: taken away */
};

static struct {
	struct dir_memory *memory;
	struct mrs_cells cells; /* the judge's */
	const char *start[3];
	unsigned actors;
	struct actor actor[THREADS];
} world;

static const char *const all_names[] = {"a11", "a12", "a21", "b11", "a11x"};

/* "a12": root word of 'a', digit 1, digit 2; further characters count in the name's digits only. */
static uint64_t hash_by_characters(const uint64_t key[2], const void *data, size_t bytes)
{
	const char *name = data;
	uint64_t hash = (uint64_t)(unsigned char)name[0] << 52;

	for (size_t i = 1; i < bytes && i < 3; i++)
		hash |= (uint64_t)(name[i] & 7) << (52 - 3 * i);
	return hash;
}

static mrs_cell start_target(const char *name)
{
	for (unsigned i = 0; i < mrs_array_length(all_names); i++)
		if (!strcmp(name, all_names[i]))
			return 1000 + i;
	return 999;
}

static struct mrs_cells handle(unsigned slot)
{
	struct mrs_cells cells = dir_memory_cells(world.memory, 1, slot);

	cells.hash = hash_by_characters;
	return cells;
}

static void setup(void *ctx)
{
	uint64_t note;

	dir_memory_reset(world.memory);
	world.cells = handle(100);
	for (unsigned i = 0; i < mrs_array_length(world.start) && world.start[i]; i++) {
		mrs_cell dirent;

		dir_memory_create(&world.cells, world.start[i], start_target(world.start[i]), &note,
				  &dirent);
	}
	for (unsigned i = 0; i < world.actors; i++) {
		struct actor *a = &world.actor[i];

		*a = (struct actor){.op = a->op, .cells = handle(i), .target = 2000 + i};
		if (a->op.kind == OP_LINK || a->op.kind == OP_LINK_PLANTED) {
			mrs_dirent_make(&a->cells, NULL, a->op.name, a->target, &a->note,
					&a->dirent);
			a->intent = CREATING;
			a->linking = true;
		} else if (a->op.kind == OP_UNLINK || a->op.kind == OP_RETARGET) {
			mrs_dir_find(&a->cells, a->op.name, &a->dirent, &a->seen_target);
		}
	}
}

/* ---- operations ---- */

static void end_intent(struct actor *a)
{
	a->intent = NONE;
	a->note = 0;
	a->linking = false;
}

static void do_link(struct actor *a)
{
	mrs_cell existing = 0;

	a->rc = mrs_dir_link(&a->cells, NULL, a->dirent, &existing);
	a->linked = a->rc == 0;
	if (a->rc)
		mrs_dirent_free(&a->cells, a->dirent);
	end_intent(a);
}

static void do_create(struct actor *a, const char *name, mrs_cell target)
{
	a->intent = CREATING;
	a->rc = mrs_dirent_make(&a->cells, NULL, name, target, &a->note, &a->dirent);
	if (a->rc)
		return;
	a->linking = true;
	do_link(a);
}

static void do_unlink(struct actor *a)
{
	a->intent = UNLINKING;
	a->note = a->dirent;
	a->rc = mrs_dir_unlink(&a->cells, a->dirent);
	a->unlinked = a->rc == 0;
}

static void do_remove(struct actor *a)
{
	mrs_cell target;

	a->rc = mrs_dir_find(&a->cells, a->op.name, &a->dirent, &target);
	if (a->rc)
		return;
	do_unlink(a);
	if (a->unlinked) {
		do {
			a->seen_target = mrs_dirent_target(&a->cells, a->dirent);
		} while (mrs_dirent_retarget(&a->cells, a->dirent, a->seen_target, 0));
		mrs_dirent_free(&a->cells, a->dirent);
	}
	end_intent(a);
}

static void do_publish(struct actor *a)
{
	mrs_cell target;

	a->rc = mrs_dir_find(&a->cells, a->op.name, &a->dirent, &target);
	if (!a->rc)
		a->rc = mrs_dirent_retarget(&a->cells, a->dirent, target, a->target);
}

static void do_publish_planted(struct actor *a)
{
	struct mrs_cell_dirent *cell;
	mrs_cell target;

	a->rc = mrs_dir_find(&a->cells, a->op.name, &a->dirent, &target);
	if (a->rc)
		return;
	cell = mrs_cell_at(&a->cells, a->dirent, MRS_CELL_DIRENT);
	a->rc = cell && mrs_cas(&cell->target, &target, a->target) ? 0 : -EAGAIN;
}

/* As if nobody else could link: for names without a node on their way. */
static void do_link_planted(struct actor *a)
{
	uint64_t *word = &world.memory->root[(unsigned char)a->op.name[0]];

	if (mrs_load_acquire(word)) {
		a->rc = -EEXIST;
		mrs_dirent_free(&a->cells, a->dirent);
	} else {
		mrs_store_release(word, mrs_word_make(MRS_WORD_DIRENT, a->dirent));
		a->linked = true;
	}
	end_intent(a);
}

/* What an operation makes its name mean. */
static mrs_cell link_target(const struct actor *a)
{
	return a->op.kind == OP_REPLACE ? start_target(a->op.name) : a->target;
}

static void act(void *ctx)
{
	struct actor *a = &world.actor[mrs_explore_self()];

	switch (a->op.kind) {
	case OP_FIND:
		a->rc = mrs_dir_find(&a->cells, a->op.name, &a->dirent, &a->seen_target);
		break;
	case OP_LINK:
		do_link(a);
		break;
	case OP_CREATE:
		do_create(a, a->op.name, a->target);
		break;
	case OP_UNLINK:
		do_unlink(a);
		break;
	case OP_RETARGET:
		a->rc = mrs_dirent_retarget(&a->cells, a->dirent, a->seen_target, a->target);
		break;
	case OP_REMOVE:
		do_remove(a);
		break;
	case OP_PUBLISH:
		do_publish(a);
		break;
	case OP_PUBLISH_PLANTED:
		do_publish_planted(a);
		break;
	case OP_REPLACE:
	case OP_SWAP:
		do_remove(a);
		if (a->unlinked)
			do_create(a, a->op.other, link_target(a));
		break;
	case OP_LINK_PLANTED:
		do_link_planted(a);
		break;
	}
}

/* ---- the judge ---- */

static bool was_there(const char *name)
{
	for (unsigned i = 0; i < mrs_array_length(world.start) && world.start[i]; i++)
		if (!strcmp(world.start[i], name))
			return true;
	return false;
}

static bool links(const struct actor *a, const char *name)
{
	if (a->op.kind == OP_REPLACE || a->op.kind == OP_SWAP)
		return !strcmp(a->op.other, name);
	return (a->op.kind == OP_LINK || a->op.kind == OP_CREATE ||
		a->op.kind == OP_LINK_PLANTED) &&
	       !strcmp(a->op.name, name);
}

static bool unlinks(const struct actor *a, const char *name)
{
	return (a->op.kind == OP_UNLINK || a->op.kind == OP_REMOVE || a->op.kind == OP_REPLACE ||
		a->op.kind == OP_SWAP) &&
	       !strcmp(a->op.name, name);
}

static bool retargets(const struct actor *a, const char *name)
{
	return (a->op.kind == OP_RETARGET || a->op.kind == OP_PUBLISH ||
		a->op.kind == OP_PUBLISH_PLANTED) &&
	       !strcmp(a->op.name, name);
}

/* Has anybody ever made this name mean this target? */
static bool may_mean(const char *name, mrs_cell target)
{
	if (was_there(name) && target == start_target(name))
		return true;
	for (unsigned i = 0; i < world.actors; i++) {
		const struct actor *a = &world.actor[i];

		if (links(a, name) && target == link_target(a))
			return true;
		if (retargets(a, name) && target == a->target)
			return true;
	}
	return false;
}

/* Number of the broken rule, 0 if none. */
static int judge_name(const char *name)
{
	int expected = was_there(name);
	bool uncertain = false;
	mrs_cell dirent, target = 0;
	int rc = mrs_dir_find(&world.cells, name, &dirent, &target);

	for (unsigned i = 0; i < world.actors; i++) {
		const struct actor *a = &world.actor[i];

		uncertain |= mrs_explore_is_dead(i) && (links(a, name) || unlinks(a, name));
		expected += links(a, name) && a->linked;
		expected -= unlinks(a, name) && a->unlinked;
	}
	if (rc && rc != -ENOENT)
		return 1;
	if (!uncertain && expected != !rc)
		return 2;
	if (!rc && !may_mean(name, target))
		return 3;
	return 0;
}

static bool somebody(bool (*does)(const struct actor *a, const char *name), const char *name)
{
	for (unsigned i = 0; i < world.actors; i++)
		if (does(&world.actor[i], name))
			return true;
	return false;
}

static int judge_find(const struct actor *a)
{
	if (a->rc && a->rc != -ENOENT)
		return 11;
	if (!a->rc && !may_mean(a->op.name, a->seen_target))
		return 12;
	if (a->rc && was_there(a->op.name) && !somebody(unlinks, a->op.name))
		return 13;
	if (!a->rc && !was_there(a->op.name) && !somebody(links, a->op.name))
		return 14;
	return 0;
}

/* A publication that succeeded is in the name, or was taken away by who unlinked it, or replaced.
 */
static int judge_retarget(const struct actor *a)
{
	mrs_cell dirent, target = 0;

	if (a->rc && a->rc != -ENOENT && a->rc != -EAGAIN)
		return 21;
	if (a->rc)
		return 0;
	for (unsigned i = 0; i < world.actors; i++) {
		const struct actor *other = &world.actor[i];

		if (other != a && retargets(other, a->op.name) && !other->rc)
			return 0;
		if (other->unlinked && other->seen_target == a->target)
			return 0;
	}
	if (!mrs_dir_find(&world.cells, a->op.name, &dirent, &target) && target == a->target)
		return 0;
	return 22;
}

static int judge_results(void)
{
	for (unsigned i = 0; i < world.actors; i++) {
		const struct actor *a = &world.actor[i];
		int broken = 0;

		if (mrs_explore_is_dead(i))
			continue;
		if (a->op.kind == OP_FIND)
			broken = judge_find(a);
		else if (retargets(a, a->op.name))
			broken = judge_retarget(a);
		else if (a->rc && a->rc != -ENOENT && a->rc != -EEXIST)
			broken = 31;
		if (broken)
			return broken;
	}
	return 0;
}

/*
 * What the reaper does for a dead process. While a dirent was being made, its note alone must find
 * every cell that was claimed.
 */
static int repair(struct actor *a, unsigned slot)
{
	bool was_making = a->intent == CREATING && !a->linking;

	if (a->intent == UNLINKING)
		mrs_dir_unlink(&world.cells, a->note);
	if (a->intent != NONE && !mrs_dir_is_linked(&world.cells, a->note))
		mrs_dirent_free(&world.cells, a->note);
	if (was_making && dir_memory_count(&world.cells, MRS_CELL_CLAIMED))
		return 41;
	mrs_cells_reap(&world.cells, slot);
	return 0;
}

/* What a primitive unlink leaves to its caller. */
static void finish_unlink(struct actor *a)
{
	if (a->op.kind != OP_UNLINK || !a->unlinked)
		return;
	a->seen_target = mrs_dirent_target(&world.cells, a->dirent);
	mrs_dirent_free(&world.cells, a->dirent);
}

static int judge_all(void)
{
	int broken;

	for (unsigned i = 0; i < world.actors; i++)
		if (!mrs_explore_is_dead(i))
			finish_unlink(&world.actor[i]);
	for (unsigned i = 0; i < world.actors; i++) {
		broken = mrs_explore_is_dead(i) ? repair(&world.actor[i], i) : 0;
		if (broken)
			return broken;
	}
	if (mrs_dir_validate(&world.cells, NULL, NULL)) {
		mrs_dir_validate(&world.cells, dir_memory_report, NULL);
		return 51;
	}
	for (unsigned i = 0; i < mrs_array_length(all_names); i++) {
		broken = judge_name(all_names[i]);
		if (broken)
			return broken;
	}
	broken = mrs_explore_is_dead(0) || mrs_explore_is_dead(1) || mrs_explore_is_dead(2)
			 ? 0
			 : judge_results();
	return broken;
}

/*
 * Most schedules end like another one of their walk: ends that were judged well are remembered by a
 * fingerprint of everything that the judge looks at.
 */
#define ENDS (1u << 20)
static uint64_t good_ends[ENDS];

static void mix(uint64_t *print, const void *data, size_t bytes)
{
	const uint64_t *word = data;

	for (size_t i = 0; i < bytes / 8; i++) {
		*print = (*print ^ word[i]) * 0x9e3779b97f4a7c15ull;
		*print ^= *print >> 29;
	}
}

static uint64_t fingerprint(void)
{
	struct dir_memory *memory = world.memory;
	uint64_t print = 1;

	mix(&print, memory->area, memory->next_frame * 4096);
	mix(&print, &memory->root['a'], 16); /* 'a' and 'b': all that the names use */
	mix(&print, memory->segments, 64);
	mix(&print, &memory->state, 128);
	for (unsigned i = 0; i < world.actors; i++) {
		const struct actor *a = &world.actor[i];
		const uint64_t seen[] = {(uint64_t)a->rc, a->dirent,   a->note,
					 a->seen_target,  a->intent,   a->linking,
					 a->linked,	  a->unlinked, mrs_explore_is_dead(i)};

		mix(&print, seen, sizeof(seen));
	}
	return print;
}

static int judge(void *ctx)
{
	uint64_t end = fingerprint();
	int broken;

	if (good_ends[end % ENDS] == end)
		return 0;
	broken = judge_all();
	if (!broken)
		good_ends[end % ENDS] = end;
	return broken;
}

/* ---- walks ---- */

static struct {
	uint64_t walks, schedules, states, deaths, truncated;
} total;

static const char *op_text(const struct op *op, char *text)
{
	static const char *const kinds[] = {"find",   "link",	      "unlink",		"retarget",
					    "create", "remove",	      "publish",	"replace",
					    "swap",   "planted-link", "planted-publish"};

	sprintf(text, "%s-%.8s", kinds[op->kind], op->name);
	return text;
}

static int walk(const char *const *start, const struct op *ops, unsigned count,
		unsigned preemptions, unsigned deaths)
{
	char name[256], text[64];
	struct mrs_explore scenario = {
		.name = name,
		.threads = count,
		.setup = setup,
		.op = {act, act, act},
		.check = judge,
		.preemptions = preemptions,
		.deaths = deaths,
		.schedules_max = MRS_COUNT(2000000, 50000000),
		.quiet = true,
	};
	struct mrs_explore_result result;
	int used, rc;

	memset(world.start, 0, sizeof(world.start));
	used = sprintf(name, "dir%s", deaths ? "!" : "");
	for (unsigned i = 0; i < mrs_array_length(world.start) && start[i]; i++) {
		world.start[i] = start[i];
		used += sprintf(name + used, ",%.8s", start[i]);
	}
	world.actors = count;
	for (unsigned i = 0; i < count; i++) {
		world.actor[i].op = ops[i];
		used += sprintf(name + used, "%c%s", i ? '+' : ':', op_text(&ops[i], text));
	}
	/* Once a segment is listed it stays: only a walk from nothing sees the list change. */
	if (start[0]) {
		scenario.constant = world.memory->segments;
		scenario.constant_bytes = sizeof(world.memory->segments);
	}
	memset(good_ends, 0, sizeof(good_ends));
	rc = mrs_explore_run(&scenario, &result);
	total.walks++;
	total.schedules += result.schedules;
	total.states += result.states;
	total.deaths += result.deaths;
	total.truncated += result.truncated;
	return rc;
}

static void print_total(const char *what)
{
	printf("%s: %llu walks, %llu schedules (%llu with a death), %llu states, %llu truncated\n",
	       what, (unsigned long long)total.walks, (unsigned long long)total.schedules,
	       (unsigned long long)total.deaths, (unsigned long long)total.states,
	       (unsigned long long)total.truncated);
	fflush(stdout);
	memset(&total, 0, sizeof(total));
}

/* Nothing; the name itself (or one in its way); its neighbour; both, so that nodes are there. */
static const char *const starts[][3] = {{NULL}, {"a11"}, {"a12"}, {"a21"}, {"a11", "a12"}};

static const struct op pair_ops[] = {
	{OP_LINK, "a11", NULL},	    {OP_LINK, "a12", NULL}, {OP_UNLINK, "a11", NULL},
	{OP_RETARGET, "a11", NULL}, {OP_FIND, "a11", NULL}, {OP_LINK, "b11", NULL},
};

static void walk_all_pairs(unsigned preemptions, unsigned deaths)
{
	for (unsigned s = 0; s < mrs_array_length(starts); s++)
		for (unsigned i = 0; i < mrs_array_length(pair_ops); i++)
			for (unsigned j = i; j < mrs_array_length(pair_ops); j++) {
				const struct op ops[] = {pair_ops[i], pair_ops[j]};

				assert_int_equal(walk(starts[s], ops, 2, preemptions, deaths), 0);
			}
}

static void test_all_pairs(void **state)
{
	walk_all_pairs(3, 0);
	print_total("all pairs, 3 preemptions");
}

/* With making and freeing, where cells are reused. */
static void test_pairs_that_reuse_cells(void **state)
{
	static const struct {
		struct op ops[2];
		const char *start[3];
	} cases[] = {
		{{{OP_CREATE, "a11", NULL}, {OP_CREATE, "a11", NULL}}, {"a11"}},
		{{{OP_CREATE, "a11", NULL}, {OP_CREATE, "a11", NULL}}, {NULL}},
		{{{OP_CREATE, "a11", NULL}, {OP_CREATE, "a12", NULL}}, {NULL}},
		{{{OP_CREATE, "a12", NULL}, {OP_REPLACE, "a11", "a21"}}, {"a11"}},
		{{{OP_PUBLISH, "a11", NULL}, {OP_REPLACE, "a11", "a12"}}, {"a11"}},
		{{{OP_PUBLISH, "a11", NULL}, {OP_REPLACE, "a11", "a11"}}, {"a11"}},
		{{{OP_FIND, "a11", NULL}, {OP_REPLACE, "a11", "a12"}}, {"a11"}},
		{{{OP_FIND, "a11", NULL}, {OP_REPLACE, "a11", "a11"}}, {"a11"}},
		{{{OP_FIND, "a11", NULL}, {OP_SWAP, "a12", "a11"}}, {"a12"}},
		/* Of the same hash. */
		{{{OP_FIND, "a11", NULL}, {OP_SWAP, "a11x", "a11"}}, {"a11x"}},
		{{{OP_REMOVE, "a11", NULL}, {OP_REPLACE, "a11", "a12"}}, {"a11"}},
		{{{OP_REMOVE, "a11", NULL}, {OP_SWAP, "a11", "a11"}}, {"a11"}},
		{{{OP_REPLACE, "a11", "a12"}, {OP_REPLACE, "a11", "a12"}}, {"a11"}},
		{{{OP_SWAP, "a11", "a12"}, {OP_SWAP, "a12", "a11"}}, {"a11", "a12"}},
	};

	for (unsigned i = 0; i < mrs_array_length(cases); i++)
		assert_int_equal(walk(cases[i].start, cases[i].ops, 2, MRS_COUNT(2, 3), 0), 0);
	print_total("pairs that reuse cells");
}

static void test_triples(void **state)
{
	static const struct op ops[][3] = {
		{{OP_LINK, "a11", NULL}, {OP_LINK, "a11", NULL}, {OP_LINK, "a11", NULL}},
		{{OP_LINK, "a11", NULL}, {OP_LINK, "a12", NULL}, {OP_LINK, "a21", NULL}},
		{{OP_LINK, "a12", NULL}, {OP_UNLINK, "a11", NULL}, {OP_FIND, "a11", NULL}},
		{{OP_LINK, "a11", NULL}, {OP_UNLINK, "a11", NULL}, {OP_LINK, "a12", NULL}},
		{{OP_RETARGET, "a11", NULL}, {OP_UNLINK, "a11", NULL}, {OP_LINK, "a12", NULL}},
	};
	static const char *const nothing[3] = {NULL};
	static const char *const one[3] = {"a11"};

	for (unsigned i = 0; i < mrs_array_length(ops); i++) {
		assert_int_equal(walk(nothing, ops[i], 3, MRS_COUNT(2, 3), 0), 0);
		assert_int_equal(walk(one, ops[i], 3, MRS_COUNT(2, 3), 0), 0);
	}
	print_total("triples");
}

/* ---- death ---- */

static void test_death_at_every_verb_beside_another(void **state)
{
	walk_all_pairs(MRS_COUNT(1, 2), 1);
	print_total("all pairs, one dies");
}

/* Alone, with names of one, two and three cells: every verb of create and of remove. */
static void test_death_at_every_verb_of_long_names(void **state)
{
	static const unsigned lengths[] = {3, 88, 89, 200, 201, 255};
	static const char *const one[3] = {"a11"};

	for (unsigned i = 0; i < mrs_array_length(lengths); i++) {
		char name[256];
		const char *const itself[3] = {name};

		memset(name, 'n', lengths[i]);
		memcpy(name, "a12", 3);
		name[lengths[i]] = 0;
		assert_int_equal(walk(one, &(struct op){OP_CREATE, name, NULL}, 1, 1, 1), 0);
		assert_int_equal(walk(itself, &(struct op){OP_CREATE, name, NULL}, 1, 1, 1), 0);
		assert_int_equal(walk(itself, &(struct op){OP_REMOVE, name, NULL}, 1, 1, 1), 0);
		assert_int_equal(walk(itself, &(struct op){OP_REPLACE, name, "b11"}, 1, 1, 1), 0);
	}
	print_total("long names, one dies");
}

/* Alone, where names of one hash push each other far below the hash's end. */
static void test_death_at_every_verb_of_a_deep_link(void **state)
{
	static const char *const one[3] = {"a11"};

	assert_int_equal(walk(one, &(struct op){OP_CREATE, "a11x", NULL}, 1, 1, 1), 0);
	print_total("deep link, dies");
}

static void test_death_where_cells_are_reused(void **state)
{
	static const struct op ops[][2] = {
		{{OP_CREATE, "a12", NULL}, {OP_REPLACE, "a11", "a21"}},
		{{OP_CREATE, "a12", NULL}, {OP_CREATE, "a12", NULL}},
		{{OP_PUBLISH, "a11", NULL}, {OP_REPLACE, "a11", "a12"}},
	};
	static const char *const start[3] = {"a11"};

	for (unsigned i = 0; i < mrs_array_length(ops); i++)
		assert_int_equal(walk(start, ops[i], 2, MRS_COUNT(1, 2), 1), 0);
	print_total("reused cells, one dies");
}

/* ---- planted ---- */

static void test_a_link_by_plain_store_is_found(void **state)
{
	static const struct op ops[] = {{OP_LINK, "a11", NULL}, {OP_LINK_PLANTED, "a11", NULL}};
	static const char *const nothing[3] = {NULL};

	assert_int_equal(walk(nothing, ops, 2, 3, 0), 1);
	print_total("planted");
}

static void test_a_retarget_of_the_target_alone_is_found(void **state)
{
	static const struct op ops[] = {{OP_PUBLISH_PLANTED, "a11", NULL},
					{OP_REPLACE, "a11", "a12"}};
	static const char *const start[3] = {"a11"};

	assert_int_equal(walk(start, ops, 2, 3, 0), 1);
	print_total("planted");
}

int main(void)
{
	const struct CMUnitTest short_walks[] = {
		cmocka_unit_test(test_pairs_that_reuse_cells),
		cmocka_unit_test(test_death_at_every_verb_beside_another),
		cmocka_unit_test(test_death_at_every_verb_of_long_names),
		cmocka_unit_test(test_death_at_every_verb_of_a_deep_link),
		cmocka_unit_test(test_death_where_cells_are_reused),
		cmocka_unit_test(test_a_link_by_plain_store_is_found),
		cmocka_unit_test(test_a_retarget_of_the_target_alone_is_found),
	};
	const struct CMUnitTest long_walks[] = {
		cmocka_unit_test(test_triples),
		cmocka_unit_test(test_all_pairs),
	};
	int failed;

	world.memory = dir_memory_make(16);
	failed = cmocka_run_group_tests_name("dir explored, short", short_walks, NULL, NULL);
	if (!failed) /* else the long ones would say the same, later */
		failed = cmocka_run_group_tests_name("dir explored, long", long_walks, NULL, NULL);
	dir_memory_free(world.memory);
	return failed;
}

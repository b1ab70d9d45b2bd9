/*
 * The interleaving explorer. See explore.h.
 *
 * Depth-first walk by replay: a schedule is the list of the choices made where there was more than
 * one. To reach the next schedule, the last choice that has an alternative left is moved on, what
 * came after it is forgotten, and everything runs again from setup(). The choices at a point depend
 * only on the choices before it, so that a replayed beginning meets the same points again.
 */
#include "support/explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define THREADS	    MRS_EXPLORE_THREADS_MAX
#define NOBODY	    THREADS
#define STACK_BYTES (256 * 1024)
#define AT_END	    (~0u)
#define SEGMENTS    4096

enum thread_state { READY, ENDED, DEAD };

/* What can be done at a point: go on with thread to; die says that the present one stops for ever.
 */
struct alternative {
	unsigned to;
	bool die;
	bool preempts;
};

/* One choice of the schedule being run, among count alternatives. */
struct choice {
	uint8_t count;
	uint8_t chosen;
};

/* A stretch of a schedule as text: thread runs until it stands before verb number point. */
struct segment {
	unsigned thread;
	unsigned point;
	bool dies;
};

static struct {
	const struct mrs_explore *scenario;
	struct mrs_explore_result *result;
	bool tracing;

	ucontext_t home;
	ucontext_t context[THREADS];
	char *stack[THREADS];
	enum thread_state state[THREADS];
	unsigned step[THREADS]; /* verbs that a thread has reached */
	unsigned current;
	unsigned steps, preemptions, deaths;
	bool livelock;

	struct choice *trail;
	size_t trail_room;
	size_t depth;  /* choices made in this schedule */
	size_t prefix; /* of these, given by the walk */

	const struct segment *script; /* replay: the schedule to follow */
	size_t script_length, script_at;
	bool script_misfit;

	struct segment made[SEGMENTS]; /* the schedule as it was */
	size_t made_length;
} ex;

bool mrs_explore_inside; /* a coroutine is running: verbs are points */

bool mrs_explore_is_dead(unsigned thread)
{
	return thread < THREADS && ex.state[thread] == DEAD;
}

unsigned mrs_explore_self(void)
{
	return ex.current;
}

/* ---- coroutines ---- */

static void enter(unsigned to)
{
	unsigned from = ex.current;

	ex.current = to;
	swapcontext(from == NOBODY ? &ex.home : &ex.context[from],
		    to == NOBODY ? &ex.home : &ex.context[to]);
}

static void decide(unsigned point, const volatile void *address, bool yields);

static void thread_main(int thread)
{
	ex.scenario->op[thread](ex.scenario->ctx);
	ex.state[thread] = ENDED;
	decide(AT_END, NULL, false);
	abort(); /* an ended thread is never entered again */
}

/* On its own, for getcontext() returns twice in the compiler's eyes. Nobody goes back to it. */
static __attribute__((noinline)) int context_make(ucontext_t *context)
{
	return getcontext(context);
}

static void threads_make(void)
{
	for (unsigned i = 0; i < ex.scenario->threads; i++) {
		if (!ex.stack[i])
			ex.stack[i] = malloc(STACK_BYTES);
		if (!ex.stack[i] || context_make(&ex.context[i]))
			abort();
		ex.context[i].uc_stack.ss_sp = ex.stack[i];
		ex.context[i].uc_stack.ss_size = STACK_BYTES;
		ex.context[i].uc_link = &ex.home;
		makecontext(&ex.context[i], (void (*)(void))thread_main, 1, (int)i);
		ex.state[i] = READY;
		ex.step[i] = 0;
	}
}

/* ---- choosing ---- */

static unsigned preemptions_max(void)
{
	return ex.scenario->preemptions ? ex.scenario->preemptions : 3;
}

/* The ready threads other than from, in turn after it. */
static unsigned others_ready(unsigned from, unsigned *others)
{
	unsigned threads = ex.scenario->threads, count = 0;

	for (unsigned i = 1; i <= threads; i++) {
		unsigned thread = (from == NOBODY ? i - 1 : from + i) % threads;

		if (thread != from && ex.state[thread] == READY)
			others[count++] = thread;
	}
	return count;
}

static bool may_die(unsigned thread)
{
	unsigned mortals = ex.scenario->mortals ? ex.scenario->mortals : ~0u;

	return ex.script || (ex.deaths < ex.scenario->deaths && (mortals >> thread & 1));
}

/*
 * The first alternative is what an undisturbed run does. A thread that yields (spins) hands over to
 * the next in turn for nothing, and is not offered to go on while another can.
 */
static unsigned alternatives(unsigned me, bool yields, struct alternative *list)
{
	bool ready = me != NOBODY && ex.state[me] == READY;
	bool may_preempt = ex.script || ex.preemptions < preemptions_max();
	unsigned others[THREADS], count = 0;
	unsigned other_count = others_ready(me, others);

	if (ready && (!yields || !other_count))
		list[count++] = (struct alternative){.to = me};
	for (unsigned i = 0; i < other_count; i++) {
		bool preempts = ready && (!yields || i > 0);

		if (!preempts || may_preempt)
			list[count++] = (struct alternative){others[i], false, preempts};
	}
	if (ready && may_die(me)) {
		for (unsigned i = 0; i < other_count; i++)
			list[count++] = (struct alternative){others[i], true, false};
		if (!other_count)
			list[count++] = (struct alternative){NOBODY, true, false};
	}
	if (!count)
		list[count++] = (struct alternative){.to = NOBODY};
	return count;
}

/* The alternative that the script wants: at a segment's end its successor, else to go on. */
static unsigned choose_by_script(unsigned point, const struct alternative *list, unsigned count)
{
	unsigned me = ex.current, to = me;
	bool die = false;

	if (me == NOBODY) {
		to = ex.script[0].thread;
	} else if (ex.script_at < ex.script_length && ex.script[ex.script_at].thread == me &&
		   ex.script[ex.script_at].point == point) {
		die = ex.script[ex.script_at].dies;
		ex.script_at++;
		to = ex.script_at < ex.script_length ? ex.script[ex.script_at].thread : NOBODY;
	}
	for (unsigned i = 0; i < count; i++)
		if (list[i].to == to && list[i].die == die)
			return i;
	ex.script_misfit = true;
	return 0;
}

static unsigned choose(unsigned count)
{
	struct choice *choice;

	if (count == 1)
		return 0;
	if (ex.depth == ex.trail_room) {
		ex.trail_room = ex.trail_room ? 2 * ex.trail_room : 256;
		ex.trail = realloc(ex.trail, ex.trail_room * sizeof(*ex.trail));
		if (!ex.trail)
			abort();
	}
	choice = &ex.trail[ex.depth];
	if (ex.depth++ >= ex.prefix)
		*choice = (struct choice){.count = (uint8_t)count};
	if (choice->count != count) {
		fprintf(stderr, "explore: %s is not deterministic: setup() must reset all state\n",
			ex.scenario->name);
		abort();
	}
	return choice->chosen;
}

static void note_segment(unsigned thread, unsigned point, bool dies)
{
	if (thread != NOBODY && ex.made_length < SEGMENTS)
		ex.made[ex.made_length++] = (struct segment){thread, point, dies};
}

static void decide(unsigned point, const volatile void *address, bool yields)
{
	struct alternative list[2 * THREADS], pick;
	unsigned me = ex.current, count;

	mrs_explore_inside = false;
	if (ex.depth >= ex.prefix)
		ex.result->states++;
	if (ex.tracing && me != NOBODY && point != AT_END)
		printf("  thread %u at point %u%s, before a verb on %p\n", me, point,
		       yields ? " (spins)" : "", (const void *)address);
	count = alternatives(me, yields, list);
	pick = list[ex.script ? choose_by_script(point, list, count) : choose(count)];
	if (pick.die) {
		ex.state[me] = DEAD;
		ex.deaths++;
	}
	ex.preemptions += pick.preempts;
	if (pick.to != me) {
		note_segment(me, point, pick.die);
		mrs_explore_inside = pick.to != NOBODY;
		enter(pick.to);
	}
	mrs_explore_inside = ex.current != NOBODY;
}

static void reach_point(const volatile void *address, bool yields)
{
	unsigned me = ex.current;

	if (!mrs_explore_inside)
		return;
	ex.step[me]++;
	if (ex.step[me] > ex.result->points[me])
		ex.result->points[me] = ex.step[me];
	if (++ex.steps > (ex.scenario->steps_max ? ex.scenario->steps_max : 20000)) {
		ex.livelock = true;
		mrs_explore_inside = false;
		note_segment(me, ex.step[me], false);
		enter(NOBODY);
	}
	decide(ex.step[me], address, yields);
}

void mrs_explore_point(const volatile void *address)
{
	const char *constant = ex.scenario->constant;

	if ((uintptr_t)address - (uintptr_t)constant >= ex.scenario->constant_bytes)
		reach_point(address, false);
}

void mrs_explore_yield(void)
{
	reach_point(NULL, true);
}

/* ---- one schedule ---- */

static void schedule_text(char *text)
{
	size_t used = 0;

	text[0] = 0;
	for (size_t i = 0; i < ex.made_length && used < MRS_EXPLORE_SCHEDULE_MAX - 24; i++) {
		const struct segment *s = &ex.made[i];
		const char *gap = i ? " " : "";

		if (s->point == AT_END)
			used += (size_t)sprintf(text + used, "%s%u@end", gap, s->thread);
		else
			used += (size_t)sprintf(text + used, "%s%u@%u%s", gap, s->thread, s->point,
						s->dies ? "!" : "");
	}
	if (used >= MRS_EXPLORE_SCHEDULE_MAX - 24)
		strcpy(text + used, " ...");
}

static void run_once(void)
{
	struct mrs_explore_result *result = ex.result;

	ex.scenario->setup(ex.scenario->ctx);
	threads_make();
	ex.depth = ex.made_length = ex.script_at = 0;
	ex.steps = ex.preemptions = ex.deaths = 0;
	ex.livelock = false;
	ex.current = NOBODY;
	decide(0, NULL, false);
	mrs_explore_inside = false;
	result->schedules++;
	result->deaths += ex.deaths > 0;
	if (ex.livelock)
		result->verdict = MRS_EXPLORE_LIVELOCK;
	else if ((result->broken = ex.scenario->check(ex.scenario->ctx)))
		result->verdict = MRS_EXPLORE_VIOLATED;
	if (result->verdict != MRS_EXPLORE_HOLDS)
		schedule_text(result->schedule);
}

/* Moves the last choice that has an alternative left; false when the walk is over. */
static bool next_schedule(void)
{
	while (ex.depth > 0) {
		struct choice *last = &ex.trail[ex.depth - 1];

		if (last->chosen + 1 < last->count) {
			last->chosen++;
			ex.prefix = ex.depth;
			return true;
		}
		ex.depth--;
	}
	return false;
}

static void begin(const struct mrs_explore *scenario, struct mrs_explore_result *result)
{
	memset(result, 0, sizeof(*result));
	ex.scenario = scenario;
	ex.result = result;
	ex.prefix = 0;
	ex.script = NULL;
	ex.script_misfit = ex.tracing = false;
}

static void report(bool always)
{
	const struct mrs_explore_result *r = ex.result;

	if (r->verdict != MRS_EXPLORE_HOLDS)
		printf("explore %s: %s (%d) after %llu schedules; again with\n"
		       "  MORSEL_EXPLORE_REPLAY='%s=%s'\n",
		       ex.scenario->name,
		       r->verdict == MRS_EXPLORE_LIVELOCK ? "LIVELOCK" : "VIOLATED", r->broken,
		       (unsigned long long)r->schedules, ex.scenario->name, r->schedule);
	else if (always || r->truncated)
		printf("explore %s: %llu schedules (%llu with a death), %llu states, verbs "
		       "%u/%u/%u, "
		       "at most %u preemptions%s\n",
		       ex.scenario->name, (unsigned long long)r->schedules,
		       (unsigned long long)r->deaths, (unsigned long long)r->states, r->points[0],
		       r->points[1], r->points[2], preemptions_max(),
		       r->truncated ? ": TRUNCATED" : "");
	fflush(stdout);
}

static const char *replay_wanted(const struct mrs_explore *scenario)
{
	const char *text = getenv("MORSEL_EXPLORE_REPLAY");
	size_t name = strlen(scenario->name);

	return text && !strncmp(text, scenario->name, name) && text[name] == '=' ? text + name + 1
										 : NULL;
}

int mrs_explore_run(const struct mrs_explore *scenario, struct mrs_explore_result *result)
{
	uint64_t most = scenario->schedules_max ? scenario->schedules_max : 2000000;
	const char *wanted = replay_wanted(scenario);

	if (wanted)
		return mrs_explore_replay(scenario, wanted, result);
	begin(scenario, result);
	do {
		run_once();
	} while (result->verdict == MRS_EXPLORE_HOLDS && result->schedules < most &&
		 next_schedule());
	if (result->verdict == MRS_EXPLORE_HOLDS && result->schedules >= most)
		result->truncated = next_schedule();
	report(!scenario->quiet);
	return result->verdict != MRS_EXPLORE_HOLDS;
}

static size_t parse_schedule(const char *text, struct segment *script)
{
	size_t length = 0;
	int used;

	while (length < SEGMENTS) {
		struct segment s = {0};
		char end[4] = "";

		if (sscanf(text, " %u@%u%n", &s.thread, &s.point, &used) == 2) {
			text += used;
			s.dies = *text == '!';
			text += s.dies;
		} else if (sscanf(text, " %u@%3[end]%n", &s.thread, end, &used) == 2) {
			text += used;
			s.point = AT_END;
		} else {
			break;
		}
		if (s.thread >= ex.scenario->threads)
			return 0;
		script[length++] = s;
	}
	return length;
}

int mrs_explore_replay(const struct mrs_explore *scenario, const char *schedule,
		       struct mrs_explore_result *result)
{
	static struct segment script[SEGMENTS];

	begin(scenario, result);
	ex.script_length = parse_schedule(schedule, script);
	if (!ex.script_length)
		return -1;
	ex.script = script;
	ex.tracing = !scenario->quiet;
	if (ex.tracing)
		printf("explore %s: replaying %s\n", scenario->name, schedule);
	run_once();
	report(ex.tracing);
	ex.script = NULL;
	if (ex.script_misfit)
		return -1;
	return result->verdict != MRS_EXPLORE_HOLDS;
}

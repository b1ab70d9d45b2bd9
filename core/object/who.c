/*
 * Who holds a page, and why it cannot be evicted: morsel_who() of <morsel/observe.h>.
 *
 * Walks what everybody can read: the leaf, the intents, the chains of listed views with their pins,
 * and the open handles. No lock is taken and nobody is asked, so that it also works beside a
 * process that stands still, which is when people ask.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "morsel/observe.h"
#include "object/internal.h"
#include "object/retarget.h"
#include "view/registry.h"

struct who {
	struct morsel *morsel;
	struct morsel_pool *pool;
	uint64_t page, family;
	struct morsel_page state;
	morsel_holder_fn fn; /* NULL: only the reason is looked for */
	void *ctx;
	int rc;
	unsigned slot; /* that is being looked at */
	struct mrs_slot *shared;
	unsigned views; /* of it that hold the page */
};

static void because(struct who *who, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The first reason counts. */
static void because(struct who *who, const char *format, ...)
{
	va_list ap;

	if (who->state.why[0])
		return;
	va_start(ap, format);
	vsnprintf(who->state.why, sizeof(who->state.why), format, ap);
	va_end(ap);
}

static const char *program_of(const struct mrs_slot *shared, char program[33])
{
	memcpy(program, shared->program, sizeof(shared->program));
	program[sizeof(shared->program)] = 0;
	return program;
}

static void tell(struct who *who, const struct morsel_holder *what)
{
	struct morsel_holder holder = *what;

	if (!who->fn || who->rc)
		return;
	holder.size = sizeof(holder);
	holder.slot = who->slot;
	holder.pid = mrs_load_relaxed32(&who->shared->pid);
	program_of(who->shared, holder.program);
	if (!mrs_pool_slot_is_alive(who->pool, who->slot))
		holder.flags |= MORSEL_HOLDER_DEAD;
	who->rc = who->fn(who->ctx, &holder);
}

/* ---- the leaf ---- */

static int look_at_leaf(struct who *who)
{
	struct mrs_leaf leaf;
	uint64_t page = who->page;
	int rc = mrs_table_leaf(&who->morsel->table, page, &leaf);

	if (rc)
		return rc;
	who->state.order = leaf.level * MRS_HUGE_ORDER;
	who->state.frame = mrs_entry_frame(leaf.entry);
	who->state.dirty = (leaf.entry & MRS_ENTRY_DIRTY) != 0;
	who->state.shared = leaf.shared;
	switch (mrs_entry_state(leaf.entry)) {
	case MRS_ENTRY_MAPPED:
		who->state.state = MORSEL_PAGE_RESIDENT;
		who->state.frame += page - leaf.page;
		break;
	case MRS_ENTRY_EVICTED:
		who->state.state = MORSEL_PAGE_EVICTED;
		break;
	case MRS_ENTRY_POISONED:
		who->state.state = MORSEL_PAGE_POISONED;
		break;
	default:
		who->state.state = MORSEL_PAGE_HOLE;
		who->state.frame = 0;
		break;
	}
	return 0;
}

/* ---- transitions under way ---- */

static const char *intent_text(uint32_t op, uint32_t step)
{
	static const char *const kind[] = {"retargeted", "evicted", "filled", "written",
					   "moved",	 "copied",  "split",  "promoted"};

	if (op == MRS_INTENT_CLONE)
		return "cloned";
	step >>= 8;
	return step < mrs_array_length(kind) ? kind[step] : kind[0];
}

static bool is_family(struct who *who, uint64_t record)
{
	return record == who->morsel->cell ||
	       (who->family && mrs_registry_family(who->pool, record) == who->family);
}

static void look_at_intent(struct who *who, const struct mrs_intent *intent)
{
	uint32_t op = mrs_load_acquire32(&intent->op);
	uint64_t page = mrs_load_relaxed(&intent->page), count = mrs_load_relaxed(&intent->count);
	struct morsel_holder holder = {.what = MORSEL_HOLDER_LOCK};
	char program[33];

	if ((op != MRS_INTENT_RETARGET && op != MRS_INTENT_CLONE) ||
	    !is_family(who, mrs_load_relaxed(&intent->cell[0])))
		return;
	if (op == MRS_INTENT_RETARGET &&
	    (who->page < page || who->page - page >= count << who->state.order))
		return;
	because(who, "it is being %s by process %u (%s)",
		intent_text(op, mrs_load_relaxed32(&intent->step)),
		mrs_load_relaxed32(&who->shared->pid), program_of(who->shared, program));
	holder.offset = page * MRS_PAGE_BYTES;
	holder.bytes = (count << who->state.order) * MRS_PAGE_BYTES;
	tell(who, &holder);
}

/* ---- views and pins ---- */

static void name_of(struct who *who, uint64_t record, char name[MORSEL_NAME_MAX + 1])
{
	struct mrs_cell_record copy;

	name[0] = 0;
	if (record != who->morsel->cell && mrs_record_copy(who->pool, record, &copy) &&
	    mrs_dirent_name(mrs_pool_cells(who->pool), copy.dirent, name))
		snprintf(name, MORSEL_NAME_MAX + 1, "morsel %llu", (unsigned long long)copy.id);
}

static void look_at_pin(struct who *who, const struct mrs_cell_view *view,
			const struct mrs_pin *pin)
{
	uint64_t first = mrs_load_acquire(&pin->first_plus_1), end = mrs_load_relaxed(&pin->end);
	struct morsel_holder holder = {.what = MORSEL_HOLDER_PIN};
	uint64_t span = 1ull << who->state.order, page = mrs_round_down(who->page, span);
	char program[33];

	/* A pin anywhere in a block of 2 MiB holds all of it. */
	if (!first || first - 1 >= page + span || end <= page)
		return;
	because(who, "it is pinned by a grant of process %u (%s)",
		mrs_load_relaxed32(&who->shared->pid), program_of(who->shared, program));
	holder.offset = (first - 1) * MRS_PAGE_BYTES;
	holder.bytes = (end - (first - 1)) * MRS_PAGE_BYTES;
	name_of(who, mrs_load_relaxed(&view->record), holder.morsel);
	tell(who, &holder);
}

static void look_at_pins(struct who *who, const struct mrs_cell_view *view)
{
	uint64_t bound = mrs_load_relaxed(&mrs_pool_state(who->pool)->cells_high);
	uint64_t more = mrs_load_acquire(&view->pin_more);

	for (size_t i = 0; i < mrs_array_length(view->pin); i++)
		look_at_pin(who, view, &view->pin[i]);
	while (more && bound--) {
		struct mrs_cell_pin *cell =
			mrs_cell_at(mrs_pool_cells(who->pool), more, MRS_CELL_PIN);

		if (!cell)
			return;
		for (size_t i = 0; i < mrs_array_length(cell->pin); i++)
			look_at_pin(who, view, &cell->pin[i]);
		more = mrs_load_acquire(&cell->more);
	}
}

static uint32_t view_flags(uint64_t flags)
{
	return (flags & MRS_VIEW_WRITABLE ? MORSEL_HOLDER_WRITABLE : 0) |
	       (flags & MRS_VIEW_POOLED ? MORSEL_HOLDER_POOLED : 0) |
	       (flags & MRS_VIEW_CPU ? MORSEL_HOLDER_CPU : 0) |
	       (flags & MRS_VIEW_BY_MAIL ? MORSEL_HOLDER_BY_MAIL : 0);
}

static void look_at_view(struct who *who, const struct mrs_cell_view *view)
{
	uint64_t record = mrs_load_acquire(&view->record), first = mrs_load_relaxed(&view->first);
	uint64_t pages = mrs_load_relaxed(&view->pages), flags = mrs_load_relaxed(&view->flags);
	struct morsel_holder holder = {.what = MORSEL_HOLDER_VIEW, .flags = view_flags(flags)};
	char program[33];

	if (!record || !is_family(who, record))
		return;
	/* Pins first: a grant is why, where a view only is where. */
	look_at_pins(who, view);
	if (who->page < first || who->page - first >= pages)
		return;
	who->views++;
	if (flags & MRS_VIEW_WRITABLE && flags & MRS_VIEW_CPU &&
	    !mrs_load_relaxed32(&who->shared->mail.flags))
		because(who,
			"the pager lacks the descriptor of process %u (%s), which may write it: "
			"it is not handed over yet",
			mrs_load_relaxed32(&who->shared->pid), program_of(who->shared, program));
	holder.offset = first * MRS_PAGE_BYTES;
	holder.bytes = pages * MRS_PAGE_BYTES;
	if (flags & MRS_VIEW_CPU)
		holder.address =
			mrs_load_relaxed(&view->address) + (who->page - first) * MRS_PAGE_BYTES;
	name_of(who, record, holder.morsel);
	tell(who, &holder);
}

static void look_at_views(struct who *who)
{
	uint64_t bound = mrs_load_relaxed(&mrs_pool_state(who->pool)->cells_high);
	uint64_t cell = mrs_load_acquire(&who->shared->views);

	while (cell && bound--) {
		struct mrs_cell_view *view =
			mrs_cell_at(mrs_pool_cells(who->pool), cell, MRS_CELL_VIEW);

		if (!view)
			return;
		look_at_view(who, view);
		cell = mrs_load_acquire(&view->more);
	}
}

/* Views that are not listed are known by the handle that they belong to, as far as they reach. */
static void look_at_handle(void *ctx, struct mrs_open *entry)
{
	struct who *who = ctx;
	uint64_t view = mrs_load_relaxed(&entry->view), end = view & ((1ull << 40) - 1);
	struct morsel_holder holder = {.what = MORSEL_HOLDER_HANDLE};

	if (mrs_load_acquire(&entry->record) != who->morsel->cell || end <= who->page)
		return;
	if (view & MRS_OPEN_WRITABLE)
		holder.flags = MORSEL_HOLDER_WRITABLE;
	holder.bytes = end * MRS_PAGE_BYTES;
	tell(who, &holder);
}

static void look_at_slot(void *ctx, unsigned slot, struct mrs_slot *shared)
{
	struct who *who = ctx;

	who->slot = slot;
	who->shared = shared;
	who->views = 0;
	for (unsigned i = 0; i < MRS_INTENTS_PER_SLOT; i++)
		look_at_intent(who, &shared->intent[i]);
	look_at_views(who);
	if (!who->views)
		mrs_open_each(who->pool, shared, look_at_handle, who);
}

/* ---- the reasons ---- */

static void look_at_rules(struct who *who)
{
	struct mrs_state *state = mrs_pool_state(who->pool);
	bool flag = mrs_flags_of(mrs_load_relaxed(&who->morsel->record->state)) & MORSEL_EVICTABLE;

	if (who->state.state != MORSEL_PAGE_RESIDENT)
		return;
	if (!flag)
		because(who, "the morsel is not evictable: it was created without it");
	else if (!mrs_morsel_is_evictable(who->morsel))
		because(who, "memory of this kind of pool is not evicted by this library");
	else if (!mrs_load_relaxed(&state->swap_table))
		because(who, "the pool has no swap target");
}

int morsel_who(struct morsel *morsel, uint64_t offset, struct morsel_page *page,
	       morsel_holder_fn fn, void *ctx)
{
	struct who who = {.morsel = morsel, .pool = morsel->pool, .page = offset / MRS_PAGE_BYTES};
	size_t size = page ? page->size : 0;
	int rc = mrs_pool_usable(morsel->pool, false);

	if (rc)
		return rc;
	if (page && size < sizeof(size))
		return mrs_fail(-EINVAL, "the size of struct morsel_page is not set");
	if (offset >= mrs_morsel_bytes(morsel))
		return mrs_fail(-EINVAL, "byte %llu is not inside the morsel, which has %llu",
				(unsigned long long)offset,
				(unsigned long long)mrs_morsel_bytes(morsel));
	who.family = mrs_registry_family(morsel->pool, morsel->cell);
	rc = look_at_leaf(&who);
	if (rc)
		return rc;
	look_at_rules(&who);
	mrs_pool_each_slot(who.pool, look_at_slot, &who);
	if (who.state.state != MORSEL_PAGE_RESIDENT)
		who.state.why[0] = 0;
	if (page) {
		memcpy((char *)page + sizeof(size), (char *)&who.state + sizeof(size),
		       mrs_min(size, sizeof(who.state)) - sizeof(size));
	}
	if (!fn)
		return 0;
	who.fn = fn;
	who.ctx = ctx;
	mrs_pool_each_slot(who.pool, look_at_slot, &who);
	return who.rc;
}

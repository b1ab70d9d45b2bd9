/*
 * The entries of a view: made, cut, taken back, restored.
 *
 *	runs of the morsel	|--- frames 100.. ---|- 900.. -|- 910.. -|	adjacent frames join
 *	granule 0		[------ entry -------][------ entry ------]	fewest
 *	granule 2 pages		[--][--][--][--][--][-][--][--][--][--][--]	what goes, goes in
 *these
 *
 * The kernel unmaps whole mappings only. So who takes a part of an entry away takes the entry away
 * and maps what was beside the part anew, which is safe only if no grant holds any of it: a device
 * may be at it just then. If one does, the answer is -EBUSY, and nothing has happened.
 *
 * What is beside the part may be mapped anew although nobody has pinned it: it has a translation,
 *so whoever wants to take its memory away has asked, or will, and waits for this view's lock.
 *
 * Taking back: where entries or pinnable memory run out, entries that no grant holds are unmapped
 *and stay in the set, unmapped; the next grant of them maps them again. Those used since the hand
 *last passed are spared once.
 */
#include <errno.h>
#include <string.h>

#include "internal.h"

static uint64_t end_of(const struct mrs_entry *entry)
{
	return entry->offset + entry->bytes;
}

/* ---- one entry and the kernel ---- */

static int map_entry(struct mrs_view *view, const struct mrs_entry *entry)
{
	struct morsel_domain *domain = view->domain;
	struct mrs_mapping mapping = {
		.iova = view->iova + entry->offset,
		.bytes = entry->bytes,
		.file_at = entry->frame * MRS_PAGE_BYTES,
		.access = view->access,
	};
	int rc = mrs_memory_at(domain, view->fd, mapping.file_at, mapping.bytes, &mapping.address);

	if (rc)
		return rc;
	domain->maps++;
	rc = domain->way->map(domain, &mapping);
	return rc ? mrs_words_of_map(domain, &mapping, rc) : 0;
}

static void count_mapped(struct mrs_view *view, struct mrs_entry *entry)
{
	entry->mapped = true;
	view->mapped++;
	view->domain->entries++;
	view->pinned += entry->bytes;
	mrs_memory_pinned(view->domain, (int64_t)entry->bytes);
}

static void count_unmapped(struct mrs_view *view, struct mrs_entry *entry)
{
	if (!entry->mapped)
		return;
	entry->mapped = false;
	view->mapped--;
	view->domain->entries--;
	view->pinned -= entry->bytes;
	mrs_memory_pinned(view->domain, -(int64_t)entry->bytes);
}

/* Unmaps what the kernel has of [offset, end): whole entries, in one call. */
static int unmap_range(struct mrs_view *view, uint64_t offset, uint64_t end)
{
	struct mrs_entry *entry = mrs_entries_from(&view->entries, offset);
	uint64_t first = UINT64_MAX, last = 0;
	int rc;

	while (entry && entry->offset < end) {
		if (entry->mapped) {
			first = mrs_min(first, entry->offset);
			last = end_of(entry);
		}
		entry = mrs_entries_from(&view->entries, end_of(entry));
	}
	if (first >= last)
		return 0;
	view->domain->unmaps++;
	rc = view->domain->way->unmap(view->domain, view->iova + first, last - first);
	if (rc)
		return morsel_fail(rc, "unmapping IOVA 0x%llx to 0x%llx: %s",
				   (unsigned long long)(view->iova + first),
				   (unsigned long long)(view->iova + last - 1), strerror(-rc));
	for (entry = mrs_entries_from(&view->entries, first); entry && entry->offset < last;
	     entry = mrs_entries_from(&view->entries, end_of(entry)))
		count_unmapped(view, entry);
	return 0;
}

/* ---- taking back ---- */

static bool lacks_room(struct morsel_domain *domain, uint64_t bytes)
{
	return domain->entries >= domain->entries_max || mrs_memory_lacks(domain, bytes);
}

/* The next entry at the hand, which moves on; NULL when it has come to the end of the last view. */
static struct mrs_entry *next_at_hand(struct morsel_domain *domain)
{
	struct mrs_entry *entry = NULL;

	while (domain->hand && !entry) {
		entry = mrs_entries_from(&domain->hand->entries, domain->hand_offset);
		if (entry) {
			domain->hand_offset = end_of(entry);
		} else {
			domain->hand = domain->hand->next;
			domain->hand_offset = 0;
		}
	}
	return entry;
}

static bool may_be_taken(const struct mrs_entry *entry, const struct mrs_view *owner,
			 const struct mrs_view *spared)
{
	return owner != spared && entry->mapped && !entry->held;
}

/*
 * Takes entries back until one more of so many bytes has room. Two rounds: in the first, what was
 * used lately is spared. False if that is not enough.
 */
static bool take_back(struct morsel_domain *domain, uint64_t bytes, const struct mrs_view *spared)
{
	for (unsigned round = 0; round < 3 && lacks_room(domain, bytes); round++) {
		struct mrs_entry *entry;

		if (!domain->hand) {
			domain->hand = domain->views;
			domain->hand_offset = 0;
		}
		while (lacks_room(domain, bytes) && (entry = next_at_hand(domain))) {
			struct mrs_view *owner = domain->hand;

			if (!may_be_taken(entry, owner, spared))
				continue;
			if (entry->recent && round < 2)
				entry->recent = false;
			else if (unmap_range(owner, entry->offset, end_of(entry)))
				return false;
		}
	}
	return !lacks_room(domain, bytes);
}

static int refuse(struct mrs_view *view, uint64_t bytes)
{
	struct mrs_mapping mapping = {.bytes = bytes};

	if (view->domain->entries >= view->domain->entries_max)
		return mrs_words_of_map(view->domain, &mapping, -ENOSPC);
	return mrs_memory_refuse(view->domain, bytes);
}

/*
 * Room for one more mapping. What a view that is being made has mapped is not taken back for it: it
 * would only turn in a circle.
 */
static int make_room(struct mrs_view *view, uint64_t bytes, const struct mrs_view *spared)
{
	if (!lacks_room(view->domain, bytes) || take_back(view->domain, bytes, spared))
		return 0;
	return refuse(view, bytes);
}

/* ---- making ---- */

/* Where the entry that contains or begins at the offset may end at most. */
static uint64_t piece_end(const struct mrs_view *view, const struct morsel_run *run,
			  uint64_t offset, uint64_t end)
{
	uint64_t at = view->morsel_offset + offset;
	uint64_t frame = run->frame + (offset - run->offset) / MRS_PAGE_BYTES;
	uint64_t granule = view->granule;

	if (!granule)
		return end;
	/* Huge pages of an evictable morsel come and go as one. */
	if (granule < MRS_HUGE_BYTES && !view->opts.granule_bytes && run->order >= 9 &&
	    !(at & (MRS_HUGE_BYTES - 1)) && !(frame & 511) && end - offset >= MRS_HUGE_BYTES)
		granule = MRS_HUGE_BYTES;
	return mrs_min(end, mrs_round_down(at, granule) + granule - view->morsel_offset);
}

/* Entries of one run that no entry covers yet. *done says how far they are made, also on failure.
 */
static int map_run(struct mrs_view *view, const struct morsel_run *run,
		   const struct mrs_view *spared, uint64_t *done)
{
	uint64_t end = run->offset + run->bytes;
	int rc = 0;

	for (*done = run->offset; *done < end;) {
		struct mrs_entry entry = {
			.offset = *done,
			.bytes = piece_end(view, run, *done, end) - *done,
			.frame = run->frame + (*done - run->offset) / MRS_PAGE_BYTES,
			.recent = true,
		};

		rc = make_room(view, entry.bytes, spared);
		if (!rc)
			rc = mrs_entries_add(&view->entries, &entry);
		if (rc)
			return rc;
		rc = map_entry(view, &entry);
		if (rc) {
			mrs_entries_remove(&view->entries, entry.offset);
			return rc;
		}
		count_mapped(view, mrs_entries_from(&view->entries, entry.offset));
		*done = end_of(&entry);
	}
	return 0;
}

/* Unmapped entries are in nobody's way: they go for good. */
static void drop_entries(struct mrs_view *view, uint64_t offset, uint64_t end)
{
	struct mrs_entry *entry = mrs_entries_from(&view->entries, offset);

	while (entry && entry->offset < end) {
		uint64_t at = entry->offset, next = end_of(entry);

		mrs_entries_remove(&view->entries, at);
		entry = mrs_entries_from(&view->entries, next);
	}
}

/* The run that begins at index i with all that follows it without a gap, in the view and in the
 * pool. */
static struct morsel_run joined(const struct morsel_run *runs, size_t n, size_t *i)
{
	struct morsel_run run = runs[*i];

	while (++*i < n && runs[*i].offset == run.offset + run.bytes &&
	       runs[*i].frame == run.frame + run.bytes / MRS_PAGE_BYTES) {
		run.bytes += runs[*i].bytes;
		run.order = mrs_max(run.order, runs[*i].order);
	}
	return run;
}

/* Of a call nothing remains; its runs had no entries before. Run n is made up to done. */
static void undo_runs(struct mrs_view *view, const struct morsel_run *runs, size_t n, uint64_t done)
{
	for (size_t i = 0; i <= n; i++) {
		uint64_t end = i < n ? runs[i].offset + runs[i].bytes : done;

		if (unmap_range(view, runs[i].offset, end))
			return; /* they stay, mapped: safe, and known */
		drop_entries(view, runs[i].offset, end);
	}
}

int mrs_map_runs(struct mrs_view *view, const struct morsel_run *runs, size_t n, bool whole)
{
	const struct mrs_view *spared = whole ? view : NULL;
	uint64_t done = n ? runs[0].offset : 0;
	int rc = 0;

	for (size_t i = 0; i < n && !rc;) {
		size_t first = i;
		struct morsel_run run = joined(runs, n, &i);

		rc = map_run(view, &run, spared, &done);
		if (rc)
			undo_runs(view, runs, first, done);
	}
	return rc;
}

/* ---- cutting ---- */

/* -EBUSY in words if a grant holds some of an entry of which a part only is to go. */
static int check_cut(struct mrs_view *view, const struct mrs_entry *entry, uint64_t offset,
		     uint64_t end)
{
	if (!entry || entry->offset >= end || (entry->offset >= offset && end_of(entry) <= end) ||
	    !entry->held)
		return 0;
	return morsel_fail(
		-EBUSY,
		"bytes %llu to %llu of the view are translated by one entry, and a grant "
		"holds some of them: a part of an entry cannot go; release the grant, or "
		"make the view with a smaller granule",
		(unsigned long long)entry->offset, (unsigned long long)(end_of(entry) - 1));
}

/* Maps what is left of an entry; if that fails it stays unmapped until the next grant. */
static void restore_rest(struct mrs_view *view, uint64_t offset)
{
	struct mrs_entry *entry = mrs_entries_from(&view->entries, offset);

	if (entry->mapped || view->gone || lacks_room(view->domain, entry->bytes) ||
	    map_entry(view, entry))
		return;
	count_mapped(view, entry);
}

/* Cuts [offset, end) out of an unmapped entry. -ENOMEM if there is no memory for a second half. */
static int cut_entry(struct mrs_view *view, struct mrs_entry *entry, uint64_t offset, uint64_t end)
{
	struct mrs_entry old = *entry, tail = old;
	int rc = 0;

	if (old.offset < offset)
		entry->bytes = offset - old.offset;
	else
		mrs_entries_remove(&view->entries, old.offset);
	if (end_of(&old) <= end)
		return 0;
	tail.offset = end;
	tail.bytes = end_of(&old) - end;
	tail.frame = old.frame + (end - old.offset) / MRS_PAGE_BYTES;
	rc = mrs_entries_add(&view->entries, &tail);
	if (rc && old.offset >= offset) /* there is room where it was */
		rc = mrs_entries_add(&view->entries, &old);
	else if (rc)
		entry->bytes = old.bytes;
	return rc;
}

int mrs_map_forget(struct mrs_view *view, uint64_t offset, uint64_t bytes)
{
	struct mrs_entry *first = mrs_entries_from(&view->entries, offset), *last, *entry;
	uint64_t end = offset + bytes, from, to;
	int rc;

	if (!first || first->offset >= end)
		return 0;
	last = mrs_entries_from(&view->entries, end - 1);
	rc = check_cut(view, first, offset, end);
	if (!rc)
		rc = check_cut(view, last, offset, end);
	if (rc)
		return rc;
	from = mrs_min(first->offset, offset);
	to = last && last->offset < end ? mrs_max(end_of(last), end) : end;
	rc = unmap_range(view, from, to);
	while (!rc && (entry = mrs_entries_from(&view->entries, offset)) && entry->offset < end)
		rc = cut_entry(view, entry, mrs_max(offset, entry->offset),
			       mrs_min(end, end_of(entry)));
	if (from < offset)
		restore_rest(view, from);
	if (to > end)
		restore_rest(view, end);
	return rc;
}

int mrs_map_suspend(struct mrs_view *view)
{
	return unmap_range(view, 0, view->bytes);
}

/* ---- grants ---- */

/* Undoes holding of the entries before end. */
static void let_go(struct mrs_view *view, uint64_t offset, uint64_t end)
{
	struct mrs_entry *entry;

	for (; offset < end; offset = end_of(entry)) {
		entry = mrs_entries_from(&view->entries, offset);
		if (!entry || entry->offset >= end)
			return;
		if (entry->held)
			entry->held--;
		entry->recent = true;
	}
}

static int restore_entry(struct mrs_view *view, struct mrs_entry *entry)
{
	int rc = make_room(view, entry->bytes, NULL);

	if (!rc)
		rc = map_entry(view, entry);
	if (!rc)
		count_mapped(view, entry);
	return rc;
}

int mrs_map_hold(struct mrs_view *view, uint64_t offset, uint64_t bytes)
{
	uint64_t end = offset + bytes, at = offset;
	int rc = 0;

	while (at < end) {
		struct mrs_entry *entry = mrs_entries_from(&view->entries, at);

		if (!entry || entry->offset > at) {
			rc = morsel_fail(-EIO,
					 "byte %llu of the view has no entry although it was "
					 "mapped",
					 (unsigned long long)at);
			break;
		}
		/* Held first: what is taken back to make room for it is something else. */
		entry->held++;
		rc = entry->mapped ? 0 : restore_entry(view, entry);
		if (rc) {
			entry->held--;
			break;
		}
		entry->recent = true;
		at = end_of(entry);
	}
	if (rc && at > offset)
		let_go(view, offset, at);
	return rc;
}

void mrs_map_release(struct mrs_view *view, uint64_t offset, uint64_t bytes)
{
	let_go(view, offset, offset + bytes);
}

/*
 * Retarget: a page that is evicted, filled, written, mapped late and pinned by three processes, one of
 * which is killed at any step. Steps carry the names of the probes in core/object.
 *
 * What is abstracted:
 *  - One page with one leaf entry. A batch is its pages one by one: no lock is waited for while another
 *    is held, so that nothing more happens in a batch than in its pages.
 *  - Bytes are LAST (every completed write is in them) or OTHER (zeros, something older, something of
 *    somebody else). A write makes memory LAST and every other copy OTHER; reading or writing OTHER is
 *    the violation. So writes and evictions may go on for ever in finitely many states.
 *  - An epoch is the answer to the question that is put to it: has a writable view been published
 *    since? A serial likewise: has this transition ended since?
 *  - A freed slot holds OTHER at once, for somebody else may have it.
 *  - The kernel: a touch of a hole and a write through a protected view stop the thread; whoever is not
 *    stopped uses memory as it is. Protection belongs to a view, stands where nothing is present too,
 *    and stays through PUNCH_HOLE. UFFDIO_COPY fills a hole and nothing else.
 *  - Memory is sequentially consistent, as Promela is. Taking a fence away lets the load behind it
 *    come first.
 *  - The gate: a repair is one step, at any time after the death; that is more than the gate allows.
 *
 * Processes: 0 the pager, after its death another one; 1 with an application thread and a fault thread
 * (which may be preempted anywhere, between its look and its ioctl as well); 2 handles its faults itself
 * (SIGBUS), maps late, unmaps, reads, writes, and pins for a device that writes without translation. Its
 * device view is forgotten by mail, which it may not answer. Who takes part in a search is said by
 * macros: check_models.py.
 *
 * STEP(who, A_B_C) says that the probe a.b.c stands there in the code. With -DTRACE the model does only
 * what a trace of the torture test says that has been done: replay.py, and the end of this file.
 *
 * GUARD(X) is true unless the model is made with -DNO=X: check_models.py takes each away in turn,
 * and demands that something goes wrong then.
 */
#define HOLE  0
#define OTHER 1
#define LAST  2

#define NONE   0
#define EVICT  1
#define SERVE  2 /* fill, or make dirty */
#define NOBODY 9
#define SLOTS  2

/* The guards, numbered; -DNO=n takes one away. */
#ifndef NO
#define NO 0
#endif
#define GUARD(n) (NO != n)
#define INTENT_FIRST	    1  /* the intent is written before the lock is taken */
#define PROTECT		    2  /* writers are stopped before the bytes are saved */
#define ALL_PROTECTED	    3  /* a listed view without descriptor: give up */
#define PAGER_FENCE	    4  /* lock, full fence, look at registry and pins */
#define MAPPER_FENCE	    5  /* publish, full fence, look at intents */
#define MAPPER_SETTLES	    6  /* a new mapper waits for the transitions that it found */
#define PIN_SETTLES	    7  /* a new pin as well */
#define PINS_LOOKED_AT	    8  /* a pinned page is not evicted */
#define REGISTRY_STAMP	    9  /* what was read of the registry is good while it stands still */
#define CLEAN_EPOCH	    10 /* clean only if no writable view came since the save */
#define EPOCH_BEFORE_LOOK   11 /* the epoch of a save is read before the registry */
#define LIST_BEFORE_EPOCH   12 /* a view is listed before it counts the epoch up */
#define COPIED_BEFORE_PUNCH 13 /* the intent says COPIED before the memory goes */
#define SAVE_DIRTY	    14 /* a dirty page's old slot is not its content */
#define OLD_SLOT_LAST	    15 /* the old slot is free only when nothing names it */
#define FILL_UNDER_LOCK	    16 /* a page is filled under its leaf's lock */
#define RECHECK		    17 /* what was seen before the lock is looked at again under it */
#define SLOT_UNDER_LOCK	    18 /* the slot is read under the lock */
#define EEXIST_KEEPS	    19 /* what is resident already is kept */
#define FILL_PROTECTS	    20 /* a fill for reading leaves the view protected */
#define UNPROTECT_LOCKED    21 /* a protection is lifted under the lock */
#define DIRTY_FIRST	    22 /* DIRTY before the protection is lifted */
#define PIN_DIRTIES	    23 /* a pin for writing makes the page dirty */
#define ALL_ACKS	    24 /* time-out: give up */
#define ACK_LAST	    25 /* the translation is gone before the answer */
#define REPAIR_LOOKS	    26 /* a repair asks what is resident */
#define WAKE		    27 /* who found the page resident wakes those who wait */
#define REMAP_PINS	    28 /* who maps a view anew keeps retarget away meanwhile */
#define REMAP_EPOCH	    29 /* and no page is clean after it */
#define ANSWER_NAMES	    30 /* an answer is for the letter that it names */
#define PINS_BEFORE_EPOCH   31 /* pins are looked at before the epoch is read: a remap ends between */

/* ---- probes ---- */

#ifdef TRACE
int which, at;
byte next_step, next_who;
bool next_held, next_mapped, next_dirty, next_named, next_copied, next_evict;
bool dying;

c_decl {
\#include "traces.h"
}
c_code {
	static unsigned char accepted[TRACES];
	static int furthest[TRACES];

	static void report(void)
	{
		for (int i = 0; i < TRACES; i++)
			printf("trace %d: %d %s\n", i, furthest[i], accepted[i] ? "accepted" : "refused");
	}
}

inline look_at_next()
{
	c_code {
		const unsigned char *next = trace_at(now.which, now.at);

		now.next_step = next[0];
		now.next_who = next[1];
		now.next_held = next[2] & 1;
		now.next_mapped = next[2] >> 1 & 1;
		now.next_dirty = next[2] >> 2 & 1;
		now.next_named = next[2] >> 3 & 1;
		now.next_copied = next[2] >> 4 & 1;
		now.next_evict = next[2] >> 5 & 1;
		if (now.at > furthest[now.which])
			furthest[now.which] = now.at;
		accepted[now.which] |= !now.next_step;
		/* Once is enough. */
		if (accepted[now.which])
			now.next_step = 0;
	}
}

inline advance()
{
	at++;
	look_at_next()
}

/* As it was noted, if it was noted under the leaf's lock. */
#define NOTED(me)                                                                       \
	(!next_held || (lock == me + 1 && mapped == next_mapped && dirty == next_dirty && \
			(op[me] != NONE) == next_named && copied[me] == next_copied))
#define STEP(me, name) \
	atomic { next_step == name && next_who == me && NOTED(me) -> advance() }
#define STEP_IF(condition, me, name) \
	if :: (condition) -> STEP(me, name) :: !(condition) fi
#define STEP_MAYBE(me, name) \
	if :: STEP(me, name) :: skip fi
/* For another page's reason, or one that is not in the model. */
#define MAY_GIVE_UP if :: ok = false :: skip fi
#else
#define STEP(me, name)
#define STEP_IF(condition, me, name)
#define STEP_MAYBE(me, name)
#define MAY_GIVE_UP
#endif

/* ---- shared memory ---- */

bool mapped = true, dirty = false; /* the leaf: MAPPED or EVICTED */
byte lock = 0;			   /* process + 1 */
byte mem = LAST;		   /* behind the frame */
byte disk[SLOTS] = OTHER;
bool taken[SLOTS];
byte slot = NOBODY;    /* property SWAP */
bool same_epoch;       /* no writable view since the property's epoch */
byte op[4];	       /* intents */
bool copied[4];
byte saving[4] = NOBODY; /* slot named by the intent */
bool awaited[4];	 /* process 2 waits for the end of this one's transition */
byte buffer[4] = OTHER;	 /* bytes on their way from the swap target */
bool fresh_epoch[4];	 /* no writable view since this one read the epoch */
byte old[4] = NOBODY;	 /* slot that goes when the new one is named */

/* ---- views ---- */

bool listed[3], with_pager[3]; /* of processes 1 and 2: in the registry, descriptor handed over */
bool wp[3];		       /* write-protected */
bool moved = false;	       /* the registry, since the pager read it */
bool pinned = false;	       /* by process 2 */
bool device = false;	       /* process 2's device has a translation */
bool mail = false;	       /* not answered */
bool letter = false;	       /* what the service thread has read is this very letter */
bool remapping = false;	       /* process 1 maps its view anew: it pins */
byte message = 0;	       /* of the kernel to process 1's fault thread */
bool asleep = false;	       /* process 1's application, in a fault */
bool serving = false;	       /* process 1's fault thread, for one */
#define MISSING	      1
#define MISSING_WRITE 2
#define PROTECTED     3

/* ---- who lives ---- */

byte dead = NOBODY; /* one death */
bool reaped = false;
#ifdef DEATH
byte stopped[4];    /* threads of each process that have ended, or died */
byte threads[3];    /* that it began with */
#endif
byte running = 0; /* threads that have not finished */
#define DEAD(p) (dead == p)

inline begins(me, count)
{
	running++;
#ifdef DEATH
	threads[me] = threads[me] + count
#endif
}

inline stop(me)
{
#ifdef DEATH
	stopped[me]++
#else
	skip
#endif
}

inline write()
{
	/* Part of a page is written: what is in the rest must be right too. */
	assert(mem == LAST);
	disk[0] = OTHER;
	disk[1] = OTHER;
	buffer[0] = OTHER;
	buffer[1] = OTHER;
	buffer[2] = OTHER;
	buffer[3] = OTHER;
}

/* A writable view was published: what was saved before is not known to be the content. */
inline new_epoch()
{
	same_epoch = false;
	fresh_epoch[0] = false;
	fresh_epoch[1] = false;
	fresh_epoch[2] = false;
	fresh_epoch[3] = false
}

inline free_slot(s)
{
	assert(taken[s]); /* freed twice? */
	taken[s] = false;
	disk[s] = OTHER;
}

inline end_intent(me)
{
	op[me] = NONE;
	copied[me] = false;
	saving[me] = NOBODY;
	awaited[me] = false;
	old[me] = NOBODY;
	fresh_epoch[me] = false
}

/* ---- the pager: core/object/evict.c ---- */

/* Write-protects the page in view v through its descriptor. */
inline stop_writer(v)
{
#if GUARD(PROTECT)
	atomic {
		if
		:: ok && !clean && view[v] && listed[v] ->
			if
			:: with_pager[v] -> wp[v] = true
			:: else -> ok = !GUARD(ALL_PROTECTED)
			fi
		:: else -> skip /* dead or unmapped meanwhile, if it was there */
		fi
	}
#else
	skip
#endif
}

#if !GUARD(REGISTRY_STAMP)
#define STAMPS 1
#endif

inline look_at_registry()
{
	d_step {
#ifdef STAMPS /* what was read before is good while the stamp stands still */
		if
		:: (moved && GUARD(REGISTRY_STAMP)) || !have ->
			view[1] = listed[1];
			view[2] = listed[2];
			have = true;
			moved = false
		:: else -> skip
		fi
#else
		view[1] = listed[1];
		view[2] = listed[2]
#endif
	}
}

/* At the end of an eviction. */
inline forget()
{
	clean = false;
	saw_pin = false;
#ifndef STAMPS
	view[1] = false;
	view[2] = false
#endif
}

inline move_stamp()
{
#ifdef STAMPS
	moved = true
#else
	skip
#endif
}

/* Which number a slot has does not matter: the one in use is 0, so that fewer states are different. */
inline swap_names()
{
#if GUARD(SLOT_UNDER_LOCK)
	if
	:: slot == 1 && !taken[0] ->
		slot = 0;
		taken[0] = true;
		disk[0] = disk[1];
		taken[1] = false;
		disk[1] = OTHER
	:: else -> skip
	fi
#else
	skip
#endif
}

inline name_slot(me, s)
{
	saving[me] = s;
	taken[s] = true;
	disk[s] = mem
}

inline page_is_clean()
{
	clean = slot != NOBODY;
#if GUARD(CLEAN_EPOCH)
	clean = clean && same_epoch;
#endif
#if GUARD(SAVE_DIRTY)
	clean = clean && !dirty;
#endif
}

inline evict(me)
{
	ok = true;
#if !GUARD(PAGER_FENCE)
	look_at_registry();
	saw_pin = pinned || remapping;
#endif
#if GUARD(INTENT_FIRST)
	op[me] = EVICT;
	STEP(me, RETARGET_ANNOUNCED);
#endif
	/* The entry is compared and swapped from what was seen of it. */
	d_step {
		if
		:: lock == 0 && mapped -> lock = me + 1
		:: else -> ok = false
		fi
	};
	if
	:: !ok -> d_step { end_intent(me); forget() }
	:: ok ->
		STEP(me, RETARGET_LOCKING);
#if !GUARD(INTENT_FIRST)
		op[me] = EVICT;
#endif
		/* full fence */
		STEP(me, RETARGET_LOCKED);
		MAY_GIVE_UP;
#if !GUARD(PINS_BEFORE_EPOCH)
		d_step { fresh_epoch[me] = true; page_is_clean() };
#endif
#if GUARD(PAGER_FENCE) && (defined(PINS) || defined(MAIL) || defined(REMAPS))
		saw_pin = pinned || remapping;
#endif
#if GUARD(PINS_LOOKED_AT)
		ok = ok && !saw_pin;
#endif
#if GUARD(EPOCH_BEFORE_LOOK) && GUARD(PINS_BEFORE_EPOCH)
		d_step { fresh_epoch[me] = true; page_is_clean() };
		STEP_IF(ok, me, EVICT_LOOKED);
#endif
#if GUARD(PAGER_FENCE)
		look_at_registry();
#endif
#if !GUARD(EPOCH_BEFORE_LOOK)
		d_step { fresh_epoch[me] = true; page_is_clean() };
#endif
#ifdef MAIL
		if
		:: ok && device -> /* all who have it are asked to forget it */
			d_step { mail = true; letter = false };
			STEP(me, MAIL_ASK_WRITTEN);
			if
			:: !mail -> STEP(me, MAIL_ASK_AWAITED); skip
			:: d_step { ok = !mail || !GUARD(ALL_ACKS); mail = false; letter = false } /* time-out */
			fi
		:: else -> skip
		fi;
#endif
		stop_writer(1);
		stop_writer(2);
		MAY_GIVE_UP;
		STEP_IF(ok, me, EVICT_PROTECTED);
		MAY_GIVE_UP;
		d_step {
			if
			:: !ok || clean -> skip
			:: ok && !clean && !taken[0] -> name_slot(me, 0)
			:: ok && !clean && taken[0] && !taken[1] -> name_slot(me, 1)
			:: else -> ok = false /* no target has room */
			fi
		};
		STEP_IF(ok, me, EVICT_SAVED);
		MAY_GIVE_UP;
		if
		:: !ok ->
#ifdef TRACE
			lock = 0;
			STEP(me, RETARGET_SET);
			STEP(me, RETARGET_ENDING);
#endif
			d_step { lock = 0; end_intent(me); forget() }
		:: ok ->
			if
			:: !clean ->
#if !GUARD(OLD_SLOT_LAST)
				d_step { if :: slot != NOBODY -> free_slot(slot) :: else -> skip fi };
#endif
				d_step {
					old[me] = slot;
					slot = saving[me];
					saving[me] = NOBODY;
					same_epoch = fresh_epoch[me]
				};
#if GUARD(OLD_SLOT_LAST)
				d_step {
					if
					:: old[me] != NOBODY -> free_slot(old[me])
					:: else -> skip
					fi;
					old[me] = NOBODY;
					swap_names()
				};
#else
				old[me] = NOBODY;
#endif
				STEP(me, EVICT_KEPT);
				skip
			:: clean -> skip
			fi;
#if GUARD(COPIED_BEFORE_PUNCH)
			copied[me] = true;
			STEP(me, EVICT_COPIED);
			mem = HOLE;
			STEP(me, EVICT_PUNCHED);
#else
			mem = HOLE;
			copied[me] = true;
#endif
#if defined(TRACE) || defined(GIVES_UP)
			/* The kernel has not taken it away, for somebody pins it: the content comes back. */
			if
			:: d_step { mem = disk[slot]; dirty = false; lock = 0 }
			:: d_step { mapped = false; dirty = false; lock = 0 }
			fi;
#else
			d_step { mapped = false; dirty = false; lock = 0 };
#endif
			STEP(me, RETARGET_SET);
			STEP(me, RETARGET_ENDING);
			d_step { end_intent(me); forget() }
		fi
	fi
}

proctype pager(byte me)
{
	bool ok, clean, saw_pin, have, view[3], reborn;

begin:	{
		do
		:: evict(me)
		:: break
		od
	} unless { DEAD(me) && !reborn };
	if
	:: DEAD(me) && !reborn -> /* another process is elected */
		d_step {
			stop(me);
			reborn = true;
			have = false;
			moved = true;
			ok = false;
			clean = false;
			saw_pin = false;
			view[1] = false;
			view[2] = false
		};
		reaped;
		goto begin
	:: else -> d_step { stop(me); running-- }
	fi
}

/* ---- faults: core/object/fault.c ---- */

/* A thread of process 1 goes on, if it sleeps in its fault. */
inline wake(me)
{
	if
	:: me == 1 -> asleep = false
	:: else -> skip
	fi
}

inline unlock(me)
{
	if
	:: lock == me + 1 -> lock = 0
	:: else -> skip
	fi
}

inline see_slot()
{
#if !GUARD(SLOT_UNDER_LOCK)
	was_slot = slot
#else
	skip
#endif
}

inline end_serve(me)
{
	end_intent(me);
	got = false;
	was_slot = 0;
	was_mapped = false;
	resident = false
}

/* Once: what is locked by somebody is waited for, and then tried again. */
inline try_serve(me, v, writing)
{
#ifdef TRACE
	op[me] = SERVE;
	STEP(me, RETARGET_ANNOUNCED);
	d_step { got = lock == 0; was_mapped = mapped; see_slot() };
#else
	/* retarget.wait */
	d_step { lock == 0 -> op[me] = SERVE; got = true; was_mapped = mapped; see_slot() };
#endif
	d_step {
		if
		:: was_mapped && !GUARD(UNPROTECT_LOCKED) -> got = true
		:: !was_mapped && !GUARD(FILL_UNDER_LOCK) -> got = true
		:: else ->
			got = got && lock == 0 && (mapped == was_mapped || !GUARD(RECHECK));
			if
			:: got -> lock = me + 1
			:: else -> skip
			fi
		fi;
		served = got
	};
	if
	:: !got -> d_step { end_serve(me) } /* somebody was quicker */
	:: got ->
		STEP(me, RETARGET_LOCKING);
		STEP(me, RETARGET_LOCKED);
		if
#if defined(TRACE) || defined(GIVES_UP)
		:: d_step { unlock(me); served = false };
		   STEP(me, RETARGET_SET);
		   STEP(me, RETARGET_ENDING);
		   d_step { end_serve(me) }
#endif
		:: !was_mapped -> fill(me, v, writing)
		:: was_mapped -> make_dirty(me, v, writing)
		fi
	fi
}

inline fill(me, v, writing)
{
	d_step {
#if GUARD(SLOT_UNDER_LOCK)
		was_slot = slot;
#endif
		if
		:: was_slot == NOBODY -> buffer[me] = OTHER
		:: else -> buffer[me] = disk[was_slot]
		fi
	};
	STEP(me, BRING_LOADING);
	d_step {
		if
		:: mem == HOLE ->
			mem = buffer[me];
			wp[v] = !(writing) && GUARD(FILL_PROTECTS);
			wake(me)
		:: else ->
			resident = true;
#if !GUARD(EEXIST_KEEPS)
			mem = buffer[me]
#endif
		fi;
		buffer[me] = OTHER
	};
	STEP(me, BRING_COPIED);
	d_step {
		mapped = true;
		dirty = (writing) || resident;
		unlock(me);
#ifndef TRACE
		end_serve(me)
#endif
	};
	STEP(me, RETARGET_SET);
	STEP(me, RETARGET_ENDING);
#ifdef TRACE
	d_step { end_serve(me) }
#endif
}

inline make_dirty(me, v, writing)
{
	d_step {
		/* A hole behind a mapped page was given back by advice: it reads as zero. */
		if
		:: mem == HOLE || !GUARD(EEXIST_KEEPS) -> mem = OTHER
		:: else -> skip
		fi;
#if GUARD(DIRTY_FIRST)
		dirty = dirty || (writing)
#endif
	};
	STEP_IF(writing, me, RETARGET_DIRTY);
	if
	:: writing ->
		STEP_MAYBE(me, FAULT_LIFTING);
		d_step { wp[v] = false; wake(me) }
	:: else -> skip
	fi;
#if !GUARD(DIRTY_FIRST)
	d_step { unlock(me) };
	if
	:: (writing) && mapped -> dirty = true
	:: else -> skip
	fi;
	d_step { end_serve(me) }
#elif defined(TRACE)
	d_step { unlock(me) };
	STEP(me, RETARGET_SET);
	STEP(me, RETARGET_ENDING);
	d_step { end_serve(me) }
#else
	d_step { unlock(me); end_serve(me) }
#endif
}

/* Serves a fault in view v. */
inline serve(me, v, writing)
{
	do
	:: try_serve(me, v, writing);
	   if
	   :: served -> break
	   :: !served -> skip
	   fi
	od;
	served = false
}

proctype fault_thread()
{
	bool was_mapped, got, resident, served;
	byte was_slot, kind;

	{
end:		do
		:: d_step { message -> kind = message; message = 0; serving = true } /* read(2) takes it */
			serve(1, 1, kind != MISSING);
			d_step {
				kind = 0;
				serving = false;
#if GUARD(WAKE)
				asleep = false
#endif
			}
		od
	} unless { DEAD(1) };
	atomic {
		stop(1);
		was_mapped = false;
		got = false;
		resident = false;
		served = false;
		was_slot = 0;
		kind = 0
	}
}

/* ---- process 1: an application that writes, and with -DREADS reads ---- */

inline fall_asleep(why)
{
	message = why;
	asleep = true
}

proctype application()
{
	{
		do
		:: d_step {
			!asleep ->
			if
			:: mem == HOLE -> fall_asleep(MISSING_WRITE)
			:: mem != HOLE && wp[1] -> fall_asleep(PROTECTED)
			:: else -> write()
			fi }
#ifdef READS
		:: d_step {
			!asleep ->
			if
			:: mem == HOLE -> fall_asleep(MISSING)
			:: else -> assert(mem == LAST)
			fi }
#endif
		:: !asleep -> break
		od
	} unless { DEAD(1) };
	atomic { stop(1); running-- }
}

#ifdef REMAPS
/* Process 1's service thread: maps its view anew; the protections are gone with the old mapping. */
proctype remapper()
{
	bool busy;

	{
		do
		::
#if GUARD(REMAP_PINS)
		   remapping = true;
		   /* full fence; who is at work is not waited for */
		   busy = op[0] != NONE;
#endif
		   if
		   :: !busy ->
#if GUARD(REMAP_EPOCH)
			d_step { new_epoch() };
#endif
			wp[1] = false;
			STEP(1, VIEW_REMAP_MAPPED);
			skip
		   :: else -> skip
		   fi;
		   d_step { remapping = false; busy = false }
		:: break
		od
	} unless { DEAD(1) };
	atomic { stop(1); busy = false; running-- }
}
#endif

/* ---- process 2: maps late, serves its own faults, pins ---- */

inline look_at_intents()
{
	d_step {
		awaited[0] = op[0] != NONE;
		awaited[1] = op[1] != NONE
	}
}

inline map()
{
#if !GUARD(MAPPER_FENCE)
	look_at_intents();
#endif
#if GUARD(LIST_BEFORE_EPOCH)
	listed[2] = true;
	move_stamp();
	d_step { new_epoch() };
#else
	d_step { new_epoch() };
	listed[2] = true;
	move_stamp();
#endif
	STEP(2, REGISTRY_ADD_LISTED);
	/* full fence */
#if GUARD(MAPPER_FENCE)
	look_at_intents();
#endif
#if GUARD(MAPPER_SETTLES)
	!awaited[0] && !awaited[1];
	STEP(2, REGISTRY_SETTLED);
#endif
	d_step { awaited[0] = false; awaited[1] = false; usable = true };
#if !defined(SILENT)
	with_pager[2] = true /* the descriptor is handed over; SILENT: no pager answers */
#endif
}

inline unmap()
{
	d_step { usable = false; wp[2] = false }; /* munmap */
	d_step { listed[2] = false; with_pager[2] = false };
	move_stamp()
}

inline pin_and_write()
{
#if !GUARD(MAPPER_FENCE)
	look_at_intents();
#endif
	pinned = true;
	STEP(2, REGISTRY_PIN_WRITTEN);
	/* full fence */
#if GUARD(MAPPER_FENCE)
	look_at_intents();
#endif
#if GUARD(PIN_SETTLES)
	!awaited[0] && !awaited[1];
#endif
	d_step { awaited[0] = false; awaited[1] = false };
	/* What is there and DIRTY already is taken as it is, without its lock. */
	if
	:: mapped && dirty -> skip
	:: else -> serve(2, 2, GUARD(PIN_DIRTIES))
	fi;
#ifdef MAIL
	device = true; /* and it stays so, after the grant */
#else
	/* The device has looked the page up once. No write of its makes a fault. */
	d_step { assert(mem != HOLE); write() };
	d_step { assert(mem != HOLE); write() };
#endif
	pinned = false
}

proctype late_mapper()
{
	bool was_mapped, got, resident, served, usable, in_fault, for_write;
	byte was_slot;

	{
		do
		:: in_fault ->
			serve(2, 2, for_write);
			d_step { in_fault = false; for_write = false }
		:: !in_fault && !usable -> map()
#ifndef MAP_ONCE
		:: !in_fault && usable -> unmap()
#endif
#ifndef MAIL
		:: d_step { !in_fault && usable && mem != HOLE -> assert(mem == LAST) }
		:: d_step { !in_fault && usable && mem != HOLE && !wp[2] -> write() }
		:: d_step { !in_fault && usable && mem == HOLE -> in_fault = true }
		:: d_step { !in_fault && usable && (mem == HOLE || wp[2]) -> in_fault = true; for_write = true }
#endif
#if defined(PINS) || defined(MAIL)
		:: !in_fault && usable -> pin_and_write()
#endif
		:: !in_fault -> break
		od
	} unless { DEAD(2) };
	atomic {
		stop(2);
		was_mapped = false;
		got = false;
		resident = false;
		served = false;
		in_fault = false;
		for_write = false;
		was_slot = 0;
		running--
	}
}

#ifdef MAIL
/* What has a translation uses it when it likes. Memory that is punched is not the page's any more. */
proctype device_thread()
{
	{
end:		do
		:: d_step { device -> assert(mem != HOLE); write() }
		od
	} unless { DEAD(2) };
	atomic { stop(2) }
}

inline answer()
{
#if GUARD(ANSWER_NAMES)
	if
	:: letter -> mail = false; letter = false
	:: else -> skip
	fi
#else
	mail = false;
	letter = false
#endif
}

/* It may stand still anywhere. */
proctype service_thread()
{
	{
end:		do
		:: d_step { mail && !letter -> letter = true };
		   STEP(2, MAIL_SERVE_READ);
#if GUARD(ACK_LAST)
			device = false;
			STEP(2, VIEW_TOLD_FORGOTTEN);
			d_step { answer() };
			STEP(2, MAIL_ANSWER_CLEARED);
			skip
#else
			d_step { answer() };
			device = false
#endif
		od
	} unless { DEAD(2) };
	atomic { stop(2) }
}
#endif

/* ---- death and repair: core/object/retarget_repair.c ---- */

inline repair_leaf(me)
{
	if
	:: lock == me + 1 ->
		if
		:: op[me] == NONE -> skip
		:: op[me] != NONE && mapped ->
			mapped = op[me] != EVICT || !copied[me] || mem != HOLE || !GUARD(REPAIR_LOOKS);
			dirty = mapped
		:: op[me] != NONE && !mapped ->
			mapped = mem != HOLE || !GUARD(REPAIR_LOOKS);
			dirty = mapped
		fi;
		lock = (op[me] == NONE -> lock : 0)
	:: else -> skip
	fi
}

/* Slots that nobody names are free. */
inline repair_slot(s)
{
	if
	:: taken[s] && slot != s && saving[0] != s && old[0] != s && saving[3] != s &&
	   old[3] != s -> free_slot(s)
	:: else -> skip
	fi
}

#ifdef DEATH
/* One death, of any process at any step; then somebody else repairs. */
proctype reaper()
{
	d_step {
		dead = DEATH;
		/* The kernel takes mappings and translations, and those who sleep. */
		if
		:: dead == 1 -> asleep = false; message = 0; serving = false; remapping = false; wp[1] = false
		:: dead == 2 -> device = false; mail = false; letter = false; wp[2] = false
		:: else -> skip
		fi
	};
	stopped[dead] == threads[dead]; /* they see it before they would do another step */
	d_step {
		repair_leaf(dead);
		end_intent(dead);
		buffer[dead] = OTHER;
		repair_slot(0);
		repair_slot(1);
		if
		:: dead == 1 -> listed[1] = false; with_pager[1] = false; moved = true
		:: dead == 2 ->
			listed[2] = false;
			with_pager[2] = false;
			moved = true;
			pinned = false;
			awaited[0] = false;
			awaited[1] = false
		:: else -> reaped = true
		fi
	};
	running--
}
#endif

inline check_slot(s)
{
	assert(taken[s] == (slot == s))
}

#ifdef TRACE
/*
 * Is what was noted of a leaf something that the model can do? Each actor is a transition, of whatever
 * process; the trace says what it is, and in which order all come to their probes. Everything else goes
 * on unseen: new views, and the reasons to give a leaf up. The C code around it reads the traces, and
 * says which have been gone through to their ends (replay.py).
 */
proctype actor(byte me)
{
	bool ok, clean, saw_pin, have, view[3], was_mapped, got, resident, served;
	byte was_slot;

alive:	{
		do
		:: next_step == RETARGET_ANNOUNCED && next_who == me && next_evict -> evict(me)
		:: next_step == RETARGET_ANNOUNCED && next_who == me && !next_evict ->
			if
			:: try_serve(me, 0, true)
			:: try_serve(me, 0, false)
			fi;
			served = false
		od
	} unless { dying && next_who == me };
	if
	:: atomic {
		next_step == RETARGET_REPAIR_SETTLED && lock == me + 1 ->
		repair_leaf(me);
		mapped == next_mapped && dirty == next_dirty
	   }
	:: next_step == DIED && lock != me + 1
	fi;
	d_step {
		repair_slot(0);
		repair_slot(1);
		end_intent(me);
		buffer[me] = OTHER;
		ok = false;
		clean = false;
		saw_pin = false;
		was_mapped = false;
		got = false;
		resident = false;
		served = false;
		was_slot = 0;
		dying = false
	};
	atomic { advance() };
	goto alive
}

/* Views come whenever they like; and who dies may have done more than he noted. */
proctype world()
{
	do
	:: d_step { !dying && (next_step == RETARGET_REPAIR_SETTLED || next_step == DIED) -> dying = true }
	:: d_step { same_epoch || fresh_epoch[0] || fresh_epoch[1] || fresh_epoch[2] || fresh_epoch[3] -> new_epoch() }
	od
}

/* Where a trace begins the leaf is unlocked, and as its first owner found it. */
init
{
	atomic {
		which = 0;
		do
		:: c_expr { now.which + 1 < TRACES } -> which++
		:: break
		od;
		look_at_next();
		c_code {
			static int once;

			if (!once++)
				atexit(report);
			now.mapped = trace[now.which].mapped;
			now.dirty = trace[now.which].dirty;
		};
		mem = (mapped -> LAST : HOLE);
		if
		:: mapped -> skip
		:: slot = 0;
		   taken[0] = true;
		   disk[0] = LAST;
		   if
		   :: same_epoch = true
		   :: skip
		   fi
		fi;
		run actor(0);
		run actor(1);
		run actor(2);
		run actor(3);
		run world()
	}
}
#else

/* When all have come to their ends: nothing is locked, leaked or lost. */
init
{
	atomic {
		with_pager[1] = true;
		moved = true;
		run pager(0);
		begins(0, 1);
#ifndef NO_WRITER
		listed[1] = true;
		run application();
		run fault_thread();
		begins(1, 2);
#endif
#ifdef REMAPS
		run remapper();
		begins(1, 1);
#endif
#ifndef NO_MAPPER
		run late_mapper();
		begins(2, 1);
#endif
#ifdef MAIL
		run device_thread();
		run service_thread();
#ifdef DEATH
		threads[2] = threads[2] + 2;
#endif
#endif
#if PAGERS == 2
		run pager(3); /* of process 3, which does nothing else */
		running++;
#endif
#ifdef DEATH
		run reaper();
		running++;
#endif
	};
	running == 0 && !asleep && !message && !serving;
	d_step {
		assert(lock == 0);
		assert(op[0] == NONE && op[2] == NONE);
		assert(mapped == (mem != HOLE));
		if
		:: mapped -> assert(mem == LAST)
		:: else -> assert(disk[slot] == LAST)
		fi;
		check_slot(0);
		check_slot(1)
	}
}
#endif

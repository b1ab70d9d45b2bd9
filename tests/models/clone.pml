/*
 * Clone: a source is cloned while it is written, a relative is written too, a view of the source comes
 * late, and one of them is killed at any step. Steps carry the names of the probes in core/object.
 *
 * What is abstracted:
 *  - A morsel A and its clone B; with -DAGAIN these are there from the beginning, and A is cloned once
 *    more, to C, which nobody looks at before the end. One table below the root, two entries in it. Entry 1 is the
 *    page that is written. Entry 0 is a page that nobody touches; its lock is the table's (break.c, 2).
 *  - A frame holds what was written to it last: nothing (BASE), A's or B's mark, or OTHER when it is
 *    not in use. Each morsel knows what it must read; reading anything else is the violation.
 *  - The kernel: a write through a protected view stops the thread; whoever is not ended writes to
 *    the frame that his view maps.
 *  - Evicting and filling: retarget.pml. Views in several places: each morsel has one view here, so the
 *    writer's follows (break_keep.c is for the others).
 *  - Memory is sequentially consistent; taking a fence away lets the load behind it come first.
 *  - The gate: a repair is one step, when nobody else is inside a transition and not parked. Who waits
 *    for a lock, for others' transitions or for a thaw is parked.
 *
 * Processes: 0 clones; 1 writes A; 2 writes B; 3 is another thread that writes A (-DTWO), or maps A late
 * and writes it (-DLATE). GUARD(n) and STEP(): retarget.pml.
 */
#define NONE  9
#define A     0
#define B     1
#define C     2
#ifdef AGAIN
#define CLONE C
#else
#define CLONE B
#endif
#define BASE  0
#define OTHER 3
#define TABLES 4
#define FRAMES 4

#ifndef NO
#define NO 0
#endif
#define GUARD(n) (NO != n)
#define CLONE_FENCE      1  /* frozen, full fence, look at the transitions that are there */
#define CLONE_SETTLES    2  /* and wait for them */
#define FROZEN_LOOK      3  /* while a clone is made no protection is lifted */
#define BREAK_FROZEN     4  /* and nothing is broken off */
#define BREAK_FENCE      5  /* a break announces itself, full fence, looks for a clone */
#define PROTECT          6  /* writers are stopped before anything is shared */
#define LATE_SETTLES     7  /* a view that comes late waits for the clone */
#define LATE_PROTECTS    8  /* and protects what is shared before it is used */
#define SOURCE_MARKED    9  /* the source's root says SHARED, too */
#define THAW_LAST        10 /* writing may go on when all is shared */
#define SHARED_LOOK      11 /* a protection is lifted from what is nobody else's only */
#define WAY_STILL        12 /* and if the way to it ends at the very leaf that is locked */
#define TABLE_LOCKED     13 /* of two owners who copy a table one waits */
#define TABLE_RECHECK    14 /* and then looks whether it is shared still */
#define ENTRY_COUNTED    15 /* an entry of a copied table is one link more */
#define ENTRY_MARKED     16 /* and is marked in the old table */
#define COPY_MARKED      17 /* and in the copy */
#define LINK_BEFORE_DROP 18 /* the old table is given up when it is linked no more */
#define PAGE_RECHECK     19 /* a page's link is replaced if it is what was copied */
#define FOLLOW_FIRST     20 /* the old frame is given up when the view shows it no more */
#define RECOUNT          21 /* counts are made anew after a death */
#define COPY_NOTED       22 /* what a living break has counted and not linked is counted, too */
#define REPAIR_THAWS     23 /* a dead clone is none */
#define REPAIR_UNLOCKS   24 /* nor is a dead one's lock */
#define REPAIR_DROPS     25 /* a clone that was not finished goes */

#define STEP(me, name)

/* ---- shared memory ---- */

byte root[3] = NONE; /* table of each morsel */
bool root_shared[3];
byte leaf[TABLES] = NONE; /* entry 1: its frame */
bool leaf_shared[TABLES];
byte leaf_lock[TABLES], table_lock[TABLES]; /* of entries 1 and 0: process + 1 */
byte table_more[TABLES], frame_more[FRAMES]; /* SHARES: links beyond the first */
byte zero_more;				     /* of the frame of entry 0 */
bool table_used[TABLES], frame_used[FRAMES];
byte content[FRAMES] = OTHER;
bool frozen, cloning; /* the clone's transition */
bool retarget[4];     /* each one's transition, if others are to wait for it */
bool inside[4];	      /* it may not be parked */
byte got_table[4] = NONE, got_frame[4] = NONE; /* by whom, and linked by nobody yet */
byte noted[4] = NONE; /* the copy of a table that is counted and not linked */
bool zero_counted[4], leaf_counted[4]; /* of which these entries are counted */
bool waits[4];			       /* the cloner waits for the end of this one */
bool grace[16];			       /* who waits for whom: 4 * who + whom */

/* ---- views ---- */

byte shows[4] = NONE; /* the frame that view v maps */
bool wp[4], listed[4];
bool is_clone; /* it has been returned */
byte must[3];  /* what each must read */

byte dead = NONE, running;
byte ended[4], threads[4];
bool repaired;
#define DEAD(p) (dead == p)

inline end_retarget(me)
{
	retarget[me] = false;
	waits[me] = false;
	grace[me] = false;
	grace[4 + me] = false;
	grace[8 + me] = false;
	grace[12 + me] = false;
	inside[me] = false
}

inline get_frame(me, f)
{
	d_step {
		if
		:: !frame_used[0] -> f = 0
		:: frame_used[0] && !frame_used[1] -> f = 1
		:: frame_used[0] && frame_used[1] && !frame_used[2] -> f = 2
		:: else -> assert(!frame_used[3]); f = 3
		fi;
		frame_used[f] = true;
		got_frame[me] = f
	}
}

inline get_table(me, t)
{
	d_step {
		if
		:: !table_used[0] -> t = 0
		:: table_used[0] && !table_used[1] -> t = 1
		:: table_used[0] && table_used[1] && !table_used[2] -> t = 2
		:: else -> assert(!table_used[3]); t = 3
		fi;
		table_used[t] = true;
		got_table[me] = t
	}
}

inline put_frame(f)
{
	assert(frame_used[f]);
	frame_used[f] = false;
	content[f] = OTHER
}

inline put_table(t)
{
	assert(table_used[t]);
	table_used[t] = false;
	leaf[t] = NONE;
	leaf_shared[t] = false
}

/* One link less; last says whether it was the only one. */
inline drop(more, last)
{
	if
	:: more == 0 -> last = true
	:: else -> more--; last = false
	fi
}

/* ---- core/object/clone.c ---- */

inline look_at_retargets()
{
	d_step { waits[1] = retarget[1]; waits[2] = retarget[2]; waits[3] = retarget[3] }
}

inline stop_writer(v)
{
	if
	:: listed[v] -> wp[v] = true
	:: else -> skip
	fi
}

proctype cloner()
{
	{
		d_step { cloning = true; inside[0] = true };
		STEP(0, CLONE_NOTED);
#if !GUARD(CLONE_FENCE)
		look_at_retargets();
#endif
		frozen = true;
		STEP(0, CLONE_FROZEN);
#if GUARD(CLONE_FENCE)
		look_at_retargets();
#endif
#if GUARD(CLONE_SETTLES)
		inside[0] = false;
		d_step { !waits[1] && !waits[2] && !waits[3] -> inside[0] = true };
#endif
		STEP(0, CLONE_SETTLED);
#if GUARD(PROTECT)
		stop_writer(1);
		stop_writer(3);
#endif
		STEP(0, CLONE_PROTECTED);
#if !GUARD(THAW_LAST)
		frozen = false;
#endif
		table_more[root[A]]++;
		STEP(0, CLONE_COUNTED);
#if GUARD(SOURCE_MARKED)
		root_shared[A] = true;
		STEP(0, CLONE_MARKED);
#endif
		d_step {
			root[CLONE] = root[A];
			root_shared[CLONE] = true;
			must[CLONE] = content[leaf[root[A]]]
		};
		STEP(0, CLONE_SHARED);
		frozen = false;
		STEP(0, CLONE_THAWED);
		d_step { cloning = false; inside[0] = false; is_clone = true }
	} unless { DEAD(0) };
	atomic { ended[0]++; running-- }
}

/* ---- core/object/break.c ---- */

/* Announces: true if no clone is being made. */
inline begin(me, m)
{
	inside[me] = true;
#if !GUARD(BREAK_FENCE)
	ok = m != A || !frozen;
#endif
	retarget[me] = true;
	STEP(me, RETARGET_ANNOUNCED);
#if GUARD(BREAK_FENCE)
	ok = m != A || !frozen;
#endif
#if !GUARD(BREAK_FROZEN)
	ok = true
#else
	if
	:: ok -> skip
	:: !ok ->
		d_step { end_retarget(me) };
		STEP(me, BREAK_FROZEN);
		!frozen
	fi
#endif
}

/* Takes a lock that it may have to wait for; what it did before is to be looked at again then. */
inline lock_or_wait(me, word)
{
	d_step {
		ok = word == 0;
		if
		:: ok -> word = me + 1
		:: else -> inside[me] = false
		fi
	};
	if
	:: ok -> skip
	:: !ok -> d_step { word == 0 -> inside[me] = true }
	fi
}

inline copy_entries(me)
{
	d_step { zero_more++; zero_counted[me] = true };
	if
	:: leaf_lock[table] == 0 -> skip
	:: leaf_lock[table] != 0 ->
		inside[me] = false;
		d_step { leaf_lock[table] == 0 -> inside[me] = true }
	fi;
#if GUARD(ENTRY_COUNTED)
	d_step { old = leaf[table]; frame_more[old]++; leaf_counted[me] = true };
#else
	old = leaf[table];
#endif
	d_step {
		/* It is compared and swapped. */
		ok = leaf[table] == old && leaf_lock[table] == 0;
		if
		:: ok && GUARD(ENTRY_MARKED) -> leaf_shared[table] = true
		:: else -> skip
		fi
	};
	if
	:: ok ->
		d_step { leaf[copy] = old; leaf_shared[copy] = GUARD(COPY_MARKED) }
	:: !ok -> /* from the start */
		d_step {
#if GUARD(ENTRY_COUNTED)
			drop(frame_more[old], last);
#endif
			drop(zero_more, last);
			zero_counted[me] = false;
			leaf_counted[me] = false
		}
	fi
}

/* The way below the root becomes the morsel's own; ok: it is. */
inline own_table(me, m)
{
	table = root[m];
	if
	:: !root_shared[m] -> ok = true
	:: root_shared[m] ->
		if
		:: table_more[table] == 0 ->
			d_step {
				if
				:: root[m] == table -> root_shared[m] = false
				:: else -> skip
				fi;
				ok = false /* once more */
			}
		:: table_more[table] != 0 ->
			get_table(me, copy);
			STEP(me, BREAK_TABLE_GOT);
#if GUARD(TABLE_LOCKED)
			lock_or_wait(me, table_lock[table]);
#else
			ok = true;
#endif
			if
			:: ok ->
				STEP(me, BREAK_TABLE_LOCKED);
#if GUARD(TABLE_RECHECK)
				ok = root[m] == table && root_shared[m] && table_more[table] != 0;
#endif
				if
				:: ok ->
#if GUARD(COPY_NOTED)
					noted[me] = copy;
#endif
					copy_entries(me)
				:: !ok -> skip
				fi;
				STEP(me, BREAK_TABLE_COPIED);
				if
				:: ok -> link_copy(me, m)
				:: !ok ->
					d_step {
						noted[me] = NONE;
						table_lock[table] = (table_lock[table] == me + 1 -> 0 : table_lock[table]);
						got_table[me] = NONE; put_table(copy)
					}
				fi
			:: !ok -> d_step { got_table[me] = NONE; put_table(copy) }
			fi;
			ok = false
		fi
	fi
}

inline link_copy(me, m)
{
#if !GUARD(LINK_BEFORE_DROP)
	d_step { drop(table_more[table], last) };
#endif
	d_step {
		root[m] = copy;
		root_shared[m] = false;
		got_table[me] = NONE;
		noted[me] = NONE;
		zero_counted[me] = false;
		leaf_counted[me] = false
	};
	STEP(me, BREAK_TABLE_LINKED);
#if GUARD(LINK_BEFORE_DROP)
	d_step { drop(table_more[table], last) };
#endif
	STEP(me, BREAK_TABLE_DROPPED);
	d_step { table_lock[table] = (table_lock[table] == me + 1 -> 0 : table_lock[table]) };
	if
	:: last -> bury(me)
	:: !last -> skip
	fi
}

/* Nobody links the old table any more. This is no retarget from here on: nobody waits for it. */
inline bury(me)
{
	d_step {
		drop(zero_more, last);
		drop(frame_more[leaf[table]], last);
		if
		:: last -> put_frame(leaf[table])
		:: else -> skip
		fi
	};
	STEP(me, BREAK_TABLE_BURYING);
	d_step { end_retarget(me); inside[me] = true };
	d_step {
		grace[4 * me + 1] = retarget[1];
		grace[4 * me + 2] = retarget[2];
		grace[4 * me + 3] = retarget[3];
		inside[me] = false
	};
	d_step { !grace[4 * me + 1] && !grace[4 * me + 2] && !grace[4 * me + 3] -> inside[me] = true };
	d_step { put_table(table); last = false }
}

/* The page gets a frame of its own, and the view shows it; ok: done. */
inline own_page(me, m, v)
{
	table = root[m];
	old = leaf[table];
	if
	:: !leaf_shared[table] -> ok = true
	:: leaf_shared[table] && frame_more[old] == 0 ->
		d_step {
			ok = leaf[table] == old && leaf_lock[table] == 0;
			if
			:: ok -> leaf_shared[table] = false
			:: else -> skip
			fi
		}
	:: leaf_shared[table] && frame_more[old] != 0 ->
		get_frame(me, new);
		STEP(me, BREAK_PAGE_GOT);
		content[new] = content[old];
		STEP(me, BREAK_PAGE_COPIED);
		lock_or_wait(me, leaf_lock[table]);
		if
		:: ok ->
			STEP(me, BREAK_PAGE_LOCKED);
#if GUARD(PAGE_RECHECK)
			ok = leaf[table] == old && leaf_shared[table];
#endif
			if
			:: ok ->
				d_step { leaf[table] = new; leaf_shared[table] = false; got_frame[me] = NONE };
				STEP(me, BREAK_PAGE_LINKED);
#if !GUARD(FOLLOW_FIRST)
				give_up_old();
#endif
				d_step { shows[v] = new; wp[v] = false };
				STEP(me, VIEW_FOLLOW_MAPPED);
#if GUARD(FOLLOW_FIRST)
				give_up_old();
#endif
				STEP(me, BREAK_PAGE_DROPPED);
				skip
			:: !ok -> d_step { got_frame[me] = NONE; put_frame(new) }
			fi;
			d_step { leaf_lock[table] = 0; last = false; new = NONE }
		:: !ok -> d_step { got_frame[me] = NONE; put_frame(new); new = NONE }
		fi
	fi
}

inline give_up_old()
{
	d_step {
		drop(frame_more[old], last);
		if
		:: last -> put_frame(old)
		:: else -> skip
		fi
	}
}

inline forget_all()
{
	d_step { table = NONE; copy = NONE; old = NONE; new = NONE; last = false; ok = false }
}

inline break_off(me, m, v)
{
	do
	:: begin(me, m);
	   if
	   :: !ok -> skip
	   :: ok ->
		own_table(me, m);
		if
		:: ok -> own_page(me, m, v)
		:: !ok -> skip
		fi;
		d_step { end_retarget(me) };
		if
		:: ok -> break
		:: !ok -> skip
		fi
	   fi
	od;
	forget_all()
}

/* ---- core/object/fault.c ---- */

/* A write through a protected view. */
inline serve(me, m, v)
{
	inside[me] = true;
	retarget[me] = true;
	STEP(me, RETARGET_ANNOUNCED);
	table = root[m];
	d_step {
		/* Who finds a lock waits outside. */
		assert(table_used[table]);
		ok = leaf_lock[table] == 0;
		if
		:: ok -> leaf_lock[table] = me + 1
		:: else -> skip
		fi
	};
	if
	:: ok ->
		STEP(me, RETARGET_LOCKED);
		d_step {
			assert(table_used[table]);
			ok = root[m] == table /* does the way still lead to the leaf? */
		};
#if GUARD(FROZEN_LOOK)
		ok = ok && (m != A || !frozen);
#endif
		alone = !GUARD(SHARED_LOOK) ||
			((root[m] == table || !GUARD(WAY_STILL)) && !root_shared[m] && !leaf_shared[root[m]]);
		if
		:: ok && alone ->
			STEP(me, RETARGET_DIRTY);
			STEP(me, FAULT_LIFTING);
			/* As the kernel does it: by address, whatever is there. */
			wp[v] = false
		:: else -> skip
		fi;
		d_step { leaf_lock[table] = 0; end_retarget(me) };
		if
		:: ok && !alone -> break_off(me, m, v)
		:: else -> skip
		fi
	:: !ok -> d_step { end_retarget(me) }
	fi;
	d_step { table = NONE; ok = false; alone = false }
}

/* ---- who uses them ---- */

inline write(m, v)
{
	content[shows[v]] = m + 1;
	must[m] = m + 1
}

inline use(me, m, v)
{
	do
	:: d_step { shows[v] != NONE -> assert(content[shows[v]] == must[m]) }
	:: d_step { shows[v] != NONE && !wp[v] -> write(m, v) }
	:: shows[v] != NONE && wp[v] -> serve(me, m, v)
	:: break
	od
}

inline leave(me)
{
	atomic {
		ended[me]++;
		running--;
		table = NONE;
		copy = NONE;
		old = NONE;
		new = NONE;
		ok = false;
		alone = false;
		last = false
	}
}

proctype user(byte me, m, v)
{
	byte table = NONE, copy = NONE, old = NONE, new = NONE;
	bool ok, alone, last;

	{
		if
		:: m == B ->
			if
			:: d_step { is_clone || CLONE != B -> shows[v] = leaf[root[B]]; wp[v] = true }
			:: repaired && !is_clone && root[B] == NONE -> skip
			fi
		:: else -> skip
		fi;
		use(me, m, v)
	} unless { DEAD(me) };
	leave(me)
}

#ifdef LATE
/* core/view/view.c: maps, is listed, waits, and protects what is shared. */
proctype late_user()
{
	byte table = NONE, copy = NONE, old = NONE, new = NONE;
	bool ok, alone, last;

	{
		new = leaf[root[A]];
		listed[3] = true;
		STEP(3, REGISTRY_ADD_LISTED);
#if GUARD(LATE_SETTLES)
		!cloning;
#endif
		STEP(3, REGISTRY_SETTLED);
#if GUARD(LATE_PROTECTS)
		wp[3] = wp[3] || root_shared[A] || leaf_shared[root[A]];
#endif
		STEP(3, VIEW_WATCH_PROTECTED);
		d_step { shows[3] = new; new = NONE };
		use(3, A, 3)
	} unless { DEAD(3) };
	leave(3)
}
#endif

/* ---- death and repair ---- */

inline repair_locks(t)
{
	if
	:: leaf_lock[t] == dead + 1 -> leaf_lock[t] = 0
	:: else -> skip
	fi;
	if
	:: table_lock[t] == dead + 1 -> table_lock[t] = 0
	:: else -> skip
	fi
}

#define LINKS(t) ((root[A] == t) + (root[B] == t) + (root[C] == t))

inline recount_table(t)
{
	table_more[t] = (LINKS(t) > 1 -> LINKS(t) - 1 : 0);
	if
	:: table_used[t] && !LINKS(t) && got_table[1] != t && got_table[2] != t && got_table[3] != t ->
		put_table(t)
	:: else -> skip
	fi
}

/* Is it a table that some root links, and names the frame? */
#define NAMES(t, f) (table_used[t] && LINKS(t) && leaf[t] == f)
#define OWNERS(f)   (NAMES(0, f) + NAMES(1, f) + NAMES(2, f) + NAMES(3, f))
#define LINKED	    ((LINKS(0) > 0) + (LINKS(1) > 0) + (LINKS(2) > 0) + (LINKS(3) > 0))

inline recount_frame(f)
{
	frame_more[f] = (OWNERS(f) > 1 -> OWNERS(f) - 1 : 0);
	if
	:: frame_used[f] && !OWNERS(f) && got_frame[1] != f && got_frame[2] != f && got_frame[3] != f ->
		put_frame(f)
	:: else -> skip
	fi
}

/*
 * Counts are links beyond the first; what is neither linked nor in anybody's hands is free. Nobody who
 * lives is between counting entry 1 and linking it: he is not parked there.
 */
inline recount()
{
	recount_table(0);
	recount_table(1);
	recount_table(2);
	recount_table(3);
	recount_frame(0);
	recount_frame(1);
	recount_frame(2);
	recount_frame(3);
	zero_more = LINKED - 1;
	if
	:: noted[1] != NONE && zero_counted[1] -> zero_more++
	:: else -> skip
	fi;
	if
	:: noted[2] != NONE && zero_counted[2] -> zero_more++
	:: else -> skip
	fi;
	if
	:: noted[3] != NONE && zero_counted[3] -> zero_more++
	:: else -> skip
	fi
}

#ifdef DEATH
proctype reaper()
{
	d_step { dead = DEATH };
	ended[dead] == threads[dead];
	/* The kernel takes its views; the gate: nobody else is inside. */
	d_step {
		(dead == 0 || !inside[0]) && (dead == 1 || !inside[1]) && (dead == 2 || !inside[2]) &&
			(dead == 3 || !inside[3]);
#if GUARD(REPAIR_UNLOCKS)
		repair_locks(0);
		repair_locks(1);
		repair_locks(2);
		repair_locks(3);
#endif
		end_retarget(dead);
		noted[dead] = NONE;
		got_table[dead] = NONE;
		got_frame[dead] = NONE;
		zero_counted[dead] = false;
		leaf_counted[dead] = false;
		if
		:: dead == 0 ->
			cloning = false;
#if GUARD(REPAIR_THAWS)
			frozen = false;
#endif
			if
			:: !is_clone && GUARD(REPAIR_DROPS) -> root[CLONE] = NONE
			:: else -> skip
			fi
		:: else -> shows[dead] = NONE; listed[dead] = false
		fi;
#if GUARD(RECOUNT)
		recount();
#endif
		repaired = true
	};
	running--
}
#endif

/* ---- the end ---- */

inline check_table(t)
{
	assert(leaf_lock[t] == 0 && table_lock[t] == 0);
	assert(table_used[t] == (LINKS(t) > 0));
	assert(!LINKS(t) || table_more[t] == LINKS(t) - 1)
}

inline check_frame(f)
{
	assert(frame_used[f] == (OWNERS(f) > 0));
	assert(!OWNERS(f) || frame_more[f] == OWNERS(f) - 1)
}

/* Several links to a frame, and each says so. */
inline check_marks(m)
{
	if
	:: root[m] != NONE ->
		assert(LINKS(root[m]) == 1 || root_shared[m]);
		assert(OWNERS(leaf[root[m]]) == 1 || leaf_shared[root[m]]);
		assert(content[leaf[root[m]]] == must[m])
	:: else -> skip
	fi
}

init
{
	atomic {
		root[A] = 0;
		table_used[0] = true;
		leaf[0] = 0;
		frame_used[0] = true;
		content[0] = BASE;
		must[A] = BASE;
#ifdef AGAIN
		root[B] = 0;
		root_shared[A] = true;
		root_shared[B] = true;
		table_more[0] = 1;
		must[B] = BASE;
#endif
		run cloner();
		threads[0] = 1;
		running++;
#ifndef NO_A
		shows[1] = 0;
		if
		:: wp[1] = true
		:: CLONE == B
		fi;
		listed[1] = true;
		run user(1, A, 1);
		threads[1] = 1;
		running++;
#endif
#ifndef NO_B
		run user(2, B, 2);
		threads[2] = 1;
		running++;
#endif
#ifdef TWO
		run user(3, A, 1);
		threads[3] = 1;
		running++;
#endif
#ifdef LATE
		run late_user();
		threads[3] = 1;
		running++;
#endif
#ifdef DEATH
		run reaper();
		running++;
#endif
	};
	running == 0;
	d_step {
		assert(!frozen && !cloning);
		check_table(0);
		check_table(1);
		check_table(2);
		check_table(3);
		check_frame(0);
		check_frame(1);
		check_frame(2);
		check_frame(3);
		assert(zero_more == LINKED - 1);
		check_marks(A);
		check_marks(B);
		check_marks(C)
	}
}

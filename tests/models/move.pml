/*
 * Move: a page comes to another frame while two processes use it, and the number that it has left waits
 * in quarantine until nobody shows it. Steps carry the names of the probes in core/object.
 *
 * What is abstracted:
 *  - One page, three frames. Memory is LAST (every completed write is in it), OTHER or a HOLE, as in
 *    retarget.pml. What is free may be somebody else's at once, and so is OTHER.
 *  - A view is stale from when a move is counted until it has followed; a view that maps the page's
 *    frame in a fault is not said to have followed, for it has other pages.
 *  - The gate: a repair is one step, at any time after the death.
 *
 * Processes: 0 moves; 1 has a view, and no service thread that answers; 2 is another one, which follows
 * by mail, or by itself when it has missed a letter, and comes late with -DLATE. Both serve their faults
 * themselves. GUARD(n) and STEP(): retarget.pml.
 */
#define NONE  9
#define HOLE  0
#define OTHER 1
#define LAST  2

#define FREE   0
#define OURS   1
#define QUARANTINED 2

#ifndef NO
#define NO 0
#endif
#define GUARD(n) (NO != n)
#define STOP_WRITERS   1  /* writers are stopped before the bytes are copied */
#define PINS_LOOKED_AT 2  /* what is pinned stays */
#define PUNCH          3  /* the memory goes: who shows the old number faults */
#define COUNTED        4  /* a move is counted: who has not followed knows it */
#define STALE_MAPS     5  /* a fault of a view that has not followed maps the frame of now */
#define UNDER_LOCK     6  /* under the leaf's lock */
#define NOT_FOR_LAG    7  /* a number is not free while a view lags that shows it */
#define LETTER_HOLDS   8  /* a letter is followed only while its asker waits */
#define FOLLOW_PINS    9  /* who follows by himself keeps movers away meanwhile */
#define LATE_COUNT     10 /* a view that comes late reads the count before the page's place, */
#define LATE_SETTLES   11 /* and waits for the moves that are there */
#define REPAIR_ENTERS  12 /* a dead mover's number goes into quarantine */
#define REPAIR_PUNCHES 13 /* without its memory */
#define REPAIR_COUNTS  14 /* and is counted */

#define STEP(me, name)

/* ---- shared memory ---- */

byte at = 0;   /* the page's frame */
byte lock = 0; /* process + 1 */
bool moving;   /* the mover's intent */
byte mem[3] = OTHER, use[3] = FREE;
bool noted[9]; /* quarantine: view v may show frame f: 3 * f + v */
byte old = NONE, new = NONE; /* what the mover's intent and the allocator's record name */
bool claimed, counted;
bool mail, letter; /* asked of process 2; it has read this very letter */
bool pinned;	   /* by process 2 */

/* ---- views ---- */

byte shows[3] = NONE;
bool wp[3], listed[3], stale[3];
bool born;     /* process 2's may be used */
bool since[3]; /* a move was counted since it read the count */

byte dead = NONE, ended[3], threads[3], running;
#define DEAD(p) (dead == p)

inline count_move()
{
	stale[1] = listed[1];
	stale[2] = listed[2];
	since[1] = true;
	since[2] = true;
	counted = true
}

inline note(f)
{
	noted[3 * f + 1] = listed[1];
	noted[3 * f + 2] = listed[2]
}

inline end_move()
{
	lock = (lock == 1 -> 0 : lock);
	moving = false;
	claimed = false;
	counted = false;
	old = NONE;
	new = NONE;
	mail = false;
	letter = false
}

/* ---- core/object/move.c ---- */

/* A letter that has been read may still be acted on, if nobody looks whether its asker waits. */
inline end_move_keeping_letters()
{
	lock = 0;
	moving = false;
	claimed = false;
	counted = false;
	old = NONE;
	new = NONE
}

inline stop_writer(v)
{
	if
	:: listed[v] && shows[v] != NONE -> wp[v] = true
	:: else -> skip
	fi
}

inline move()
{
	moving = true;
	STEP(0, RETARGET_ANNOUNCED);
	d_step { lock == 0 -> lock = 1 };
	STEP(0, RETARGET_LOCKED);
	/* full fence */
	ok = !pinned || !GUARD(PINS_LOOKED_AT);
#if GUARD(STOP_WRITERS)
	stop_writer(1);
	stop_writer(2);
#endif
	STEP(0, MOVE_STOPPED);
	d_step {
		old = at;
		if
		:: ok && use[0] == FREE -> new = 0
		:: ok && use[0] != FREE && use[1] == FREE -> new = 1
		:: ok && use[0] != FREE && use[1] != FREE && use[2] == FREE -> new = 2
		:: else -> ok = false
		fi;
		if
		:: ok -> use[new] = OURS
		:: else -> skip
		fi
	};
	STEP(0, MOVE_GOT);
	if
	:: !ok -> skip
	:: ok ->
		mem[new] = mem[old];
		STEP(0, MOVE_COPIED);
		d_step { note(old); claimed = true };
		STEP(0, QUARANTINE_CLAIMED);
		at = new;
		STEP(0, MOVE_LINKED);
		d_step { use[old] = QUARANTINED; claimed = true };
		STEP(0, QUARANTINE_COMMITTED);
#if GUARD(PUNCH)
		mem[old] = HOLE;
		STEP(0, QUARANTINE_PUNCHED);
#endif
#if GUARD(COUNTED)
		d_step { count_move() };
#endif
		STEP(0, MOVE_FOLLOWED);
		if
		:: listed[2] ->
			d_step { mail = true; letter = false };
			STEP(0, MAIL_ASK_WRITTEN);
			if
			:: !mail -> skip
			:: d_step { mail = false; letter = letter && !GUARD(LETTER_HOLDS) }
			fi;
			STEP(0, MAIL_ASK_AWAITED)
		:: else -> skip
		fi
	fi;
	d_step { ok = false; end_move_keeping_letters() };
	STEP(0, RETARGET_SET);
	STEP(0, RETARGET_ENDING);
	skip
}

proctype mover()
{
	bool ok;

	{
		do
		:: move()
		:: break
		od
	} unless { DEAD(0) };
	atomic { ended[0]++; running--; ok = false }
}

/* ---- core/object/quarantine.c: whoever sweeps ---- */

inline forgets(f, v)
{
	if
	:: noted[3 * f + v] && (!listed[v] || !stale[v] || !GUARD(NOT_FOR_LAG)) -> noted[3 * f + v] = false
	:: else -> skip
	fi
}

inline sweep(f)
{
	d_step { use[f] == QUARANTINED && old != f -> forgets(f, 1); forgets(f, 2) };
	d_step {
		if
		:: use[f] == QUARANTINED && !noted[3 * f + 1] && !noted[3 * f + 2] && old != f ->
			use[f] = FREE;
			mem[f] = OTHER
		:: else -> skip
		fi
	};
	STEP(3, QUARANTINE_RELEASED);
	skip
}

proctype sweeper()
{
end:	do
	:: sweep(0)
	:: sweep(1)
	:: sweep(2)
	od
}

/* ---- views: core/object/fault.c, stale.c ---- */

inline spoil(f, v)
{
	if
	:: f != shows[v] && mem[f] == LAST -> mem[f] = OTHER
	:: else -> skip
	fi
}

/* Every other copy is old now. */
inline write(v)
{
	assert(mem[shows[v]] == LAST);
	spoil(0, v);
	spoil(1, v);
	spoil(2, v)
}

inline serve(me, v)
{
#if GUARD(UNDER_LOCK)
	d_step { lock == 0 -> lock = me + 1 };
	STEP(me, RETARGET_LOCKED);
#endif
	if
	:: stale[v] && GUARD(STALE_MAPS) ->
		d_step { shows[v] = at; wp[v] = false };
		STEP(me, STALE_MAPPED)
	:: else ->
		d_step {
			if
			:: mem[shows[v]] == HOLE -> mem[shows[v]] = OTHER /* zeros */
			:: else -> skip
			fi;
			wp[v] = false
		};
		STEP(me, FAULT_LIFTING)
	fi;
	d_step { lock = (lock == me + 1 -> 0 : lock) }
}

inline use_view(me, v)
{
	do
	:: d_step { mem[shows[v]] != HOLE -> assert(mem[shows[v]] == LAST) }
	:: d_step { mem[shows[v]] != HOLE && !wp[v] -> write(v) }
	:: mem[shows[v]] == HOLE || wp[v] -> serve(me, v)
	:: break
	od
}

proctype user(byte me, v)
{
	{
		use_view(me, v)
	} unless { DEAD(me) };
	atomic { ended[me]++; running-- }
}

/* Under a pin nobody moves it; what is stale is mapped anew. */
inline follow_pinned()
{
	pinned = true;
	/* full fence */
	if
	:: !moving || !GUARD(FOLLOW_PINS) ->
		since[2] = false;
		d_step { shows[2] = at; wp[2] = false };
		STEP(2, VIEW_REMAP_MAPPED);
		d_step { stale[2] = (since[2] -> stale[2] : false) };
		STEP(2, VIEW_REMAP_CAUGHT_UP)
	:: else -> skip
	fi;
	pinned = false
}

proctype service_thread()
{
	{
end:		do
		:: d_step { mail && !letter && born -> letter = true };
		   STEP(2, MAIL_SERVE_READ);
		   if
		   :: d_step { letter -> shows[2] = at; wp[2] = false; stale[2] = false; mail = false; letter = false };
		      STEP(2, VIEW_FOLLOW_MAPPED)
		   :: !letter -> skip
		   fi
		:: stale[2] && born -> follow_pinned()
		od
	} unless { DEAD(2) };
	atomic { ended[2]++ }
}

#ifdef LATE
/* core/view/view.c: maps, is listed, waits, follows what has moved meanwhile. */
proctype late_user(byte me, v)
{
	{
#if GUARD(LATE_COUNT)
		since[2] = false;
#endif
		shows[2] = at;
#if !GUARD(LATE_COUNT)
		since[2] = false;
#endif
		atomic { listed[2] = true; stale[2] = since[2] };
		STEP(2, REGISTRY_ADD_LISTED);
#if GUARD(LATE_SETTLES)
		!moving;
#endif
		STEP(2, REGISTRY_SETTLED);
		do
		:: since[2] -> follow_pinned()
		:: !since[2] -> break
		od;
		born = true;
		use_view(me, v)
	} unless { DEAD(2) };
	atomic { ended[2]++; running-- }
}
#endif

/* ---- death and repair ---- */

#ifdef DEATH
inline note_nobody(f)
{
	noted[3 * f + 1] = false;
	noted[3 * f + 2] = false
}

proctype reaper()
{
	d_step { dead = DEATH };
	ended[dead] == threads[dead];
	d_step {
		lock = (lock == dead + 1 -> 0 : lock);
		if
		:: dead == 0 ->
			if
			:: new != NONE && at != new -> use[new] = FREE; mem[new] = OTHER; note_nobody(old)
			:: new != NONE && at == new ->
#if GUARD(REPAIR_ENTERS)
				use[old] = QUARANTINED;
#else
				use[old] = FREE;
				mem[old] = OTHER;
#endif
#if GUARD(REPAIR_PUNCHES)
				mem[old] = (use[old] == FREE -> OTHER : HOLE);
#endif
				if
				:: !counted && GUARD(REPAIR_COUNTS) -> count_move()
				:: else -> skip
				fi
			:: else -> skip
			fi;
			end_move()
		:: else ->
			shows[dead] = NONE;
			wp[dead] = false;
			listed[dead] = false;
			stale[dead] = false;
			pinned = (dead == 2 -> false : pinned);
			mail = (dead == 2 -> false : mail)
		fi
	};
	running--
}

#endif

init
{
	atomic {
		mem[0] = LAST;
		use[0] = OURS;
		run mover();
		threads[0] = 1;
		run sweeper();
		shows[1] = 0;
		listed[1] = true;
		run user(1, 1);
		threads[1] = 1;
		running = 2;
#ifdef LATE
		run late_user(2, 2);
#else
		shows[2] = 0;
		listed[2] = true;
		born = true;
		run user(2, 2);
#endif
		running++;
		run service_thread();
		threads[2] = 2;
#ifdef DEATH
		run reaper();
		running++;
#endif
	};
	running == 0;
	assert(lock == 0 && !moving);
	assert(mem[at] == LAST && use[at] == OURS)
}

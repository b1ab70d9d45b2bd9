/*
 * The pager's office, seen from inside the view room.
 *
 * Every handle with a view of an evictable morsel has a *keeper*, a thread that is either connected
 * to the pager (which holds our descriptor while the connection stands), or is the pager, or is on
 * its way to one of the two:
 *
 *	         hangs up, or there is no pager
 *	  AWAY ----------------------------------> try the lock -- got it --> IN OFFICE
 *	   ^  ^                                        | taken                    | stop
 *	   |  +-- refused, silent: again later --- connect, hand over             v
 *	   +------------------ hang-up ------------ CONNECTED                  (resigned)
 *
 * Files: pager.c the keeper and its interface, elect.c the lock and the announcement, handover.c
 * what is said on a connection, desk.c the descriptors that the pager holds and how it protects,
 * work.c its working threads.
 */
#ifndef MRS_VIEW_OFFICE_H
#define MRS_VIEW_OFFICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "object/retarget.h"
#include "pool/pool.h"
#include "view/mailbox.h"
#include "view/pager.h"

/* ---- elect.c ---- */

/* Names and sockets of one election: state.pager as it announces it. */
struct mrs_office {
	uint64_t word; /* slot + 1 | serial << 16; 0: none */
	int lock_fd;   /* MRS_LOCK_PAGER; -1 */
	int listener;  /* -1 */
};

/*
 * Takes the office if it is free: -EAGAIN, without words, if somebody has it. *office is noted by
 * the caller's struct before a fork can pass its descriptors on.
 */
int mrs_office_take(struct morsel_pool *pool, struct mrs_office *office);
void mrs_office_leave(struct morsel_pool *pool, struct mrs_office *office);
/* A socket connected to the pager that word announces; noted in *fd. -errno without words. */
int mrs_office_call(struct morsel_pool *pool, uint64_t word, int *fd);

/* ---- handover.c ---- */

/*
 * What is said on a connection, all of it in packets of a fixed size. Each side shows that it reads
 * the pool's memory before it believes, or is believed: the pager knows the caller's nonce, which
 * stands in the caller's slot, the caller knows the pager's secret, and neither goes over the wire.
 *
 *	caller -> pager  HELLO: slot, generation, a challenge
 *	pager -> caller  ANSWER: hash by the caller's nonce of the caller's challenge; a challenge
 *	caller -> pager  PROOF: hash by the pager's secret of the pager's challenge; the descriptor
 *	pager -> caller  DONE
 */
#define MRS_PACKET_MAGIC 0x7265676170727372ull
enum mrs_packet_kind { MRS_PACKET_HELLO = 1, MRS_PACKET_ANSWER, MRS_PACKET_PROOF, MRS_PACKET_DONE };
struct mrs_packet {
	uint64_t magic;
	uint32_t kind;
	uint32_t slot;
	uint64_t generation;
	uint64_t hash;
	uint64_t challenge[2];
};

/* Draws this handle's nonce and puts it into its slot; before its first call. */
int mrs_handover_prepare(struct morsel_pool *pool);
/* The caller's packets. uffd may be -1: nothing is handed over. */
int mrs_handover_hello(struct morsel_pool *pool, int fd, struct mrs_packet *hello);
int mrs_handover_proof(struct morsel_pool *pool, uint64_t word, int fd,
		       const struct mrs_packet *hello, int uffd);
/* The pager's: each reads a packet and answers it. -EAGAIN: nothing there; -EPERM: a stranger. */
int mrs_handover_answer(struct morsel_pool *pool, uint64_t word, int fd,
			struct mrs_packet *session);
int mrs_handover_accept(struct morsel_pool *pool, uint64_t word, int fd,
			const struct mrs_packet *session, int *uffd);
/* Says DONE, when the descriptor is in use. */
int mrs_handover_admit(int fd);
/* Did the pager say DONE? */
int mrs_handover_done(int fd);

/* ---- desk.c ---- */

/* A caller: one connection. */
struct mrs_caller {
	int fd;	  /* connection, -1 unused */
	int uffd; /* -1 until it is handed over, or none was */
	bool admitted;
	int64_t since_ns;
	struct mrs_packet session; /* slot, generation; our challenge */
};

#define MRS_CALLERS (MRS_SLOTS + 64) /* some may be strangers, for a while */

/* The writable views of one family, as they were when state.registry was at seen. */
struct mrs_view_cache {
	uint64_t family; /* 0: nothing in it */
	uint64_t seen;
	struct mrs_seen_view *view;
	size_t count, room;
};

struct mrs_desk {
	/* Protects descriptors and cache while they are used; mrs_fork_hold() may follow it. */
	pthread_mutex_t lock;
	struct mrs_caller caller[MRS_CALLERS];
	uint16_t of_slot[MRS_SLOTS]; /* caller index + 1 that is admitted for the slot, 0 none */
	struct mrs_view_cache cache;
	bool full; /* no descriptor left: the listener rests */
};

/* ---- work.c ---- */

#define MRS_JOBS 64

struct mrs_work {
	struct morsel_pool *pool;
	pthread_mutex_t lock; /* protects what follows; nothing follows it */
	pthread_cond_t posted;
	struct mrs_pager_job job[MRS_JOBS];
	unsigned first, count;
	bool reap;
	bool open;	   /* jobs are taken */
	uint32_t stopping; /* atomic */
	bool runs;
	pthread_t worker, ticker;
};

int mrs_work_start(struct morsel_pool *pool, struct mrs_work *work);
/* Jobs that are still there are answered with -EAGAIN. */
void mrs_work_stop(struct mrs_work *work);
int mrs_work_post(struct mrs_work *work, const struct mrs_pager_job *job);
/* A process has hung up: its remains are to be cleaned up. */
void mrs_work_reap(struct mrs_work *work);

/* ---- pager.c ---- */

enum mrs_keeper_state { MRS_KEEPER_AWAY, MRS_KEEPER_CONNECTED, MRS_KEEPER_IN_OFFICE };

struct mrs_pager {
	struct mrs_part part;
	pthread_mutex_t lock; /* protects state ... failure; desk's and work's may follow */
	pthread_cond_t changed;
	enum mrs_keeper_state state;
	uint64_t failures;  /* of the keeper to leave AWAY, since it was there last */
	char why[256];	    /* the last of them, in words */
	int handed_over;    /* the uffd that the pager has, -1 none */
	uint32_t in_office; /* atomic: state is IN_OFFICE */
	uint32_t stopping;  /* atomic */
	bool runs;
	pthread_t keeper;
	int bell; /* eventfd: the keeper looks around */
	int call; /* connection to the pager, -1 */
	struct mrs_office office;
	struct mrs_desk desk;
	struct mrs_work work;
};

/* The handle's; NULL if it was not made. */
struct mrs_pager *mrs_pager_of(struct morsel_pool *pool);

/* desk.c: runs the office until the bell rings for the end. */
void mrs_desk_init(struct mrs_desk *desk);
void mrs_desk_serve(struct mrs_pager *pager);
void mrs_desk_clear(struct mrs_desk *desk);
/* In a child of fork. */
void mrs_desk_in_child(struct mrs_desk *desk);

#endif

/*
 * Handing a userfaultfd descriptor over: who proves what to whom. The packets are described in
 * office.h.
 *
 * The name of the socket is no secret, so neither side trusts the other for being there. A caller
 * gives its descriptor, which controls its whole address space, only to who has read the nonce in
 * its slot; the pager takes descriptors only from who has read the secret in the pool's state. Both
 * stand in memory that only those can read who may attach the pool.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/base.h"
#include "base/probe.h"
#include "pool/internal.h"
#include "pool/siphash.h"
#include "view/office.h"

union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

/* ---- packets ---- */

static int send_packet(int fd, struct mrs_packet *packet, int passed)
{
	struct iovec data = {packet, sizeof(*packet)};
	union control control = {{0}};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	struct cmsghdr *header;

	packet->magic = MRS_PACKET_MAGIC;
	if (passed >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(passed));
		memcpy(CMSG_DATA(header), &passed, sizeof(passed));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* *passed is noted before a fork can pass it on; NULL: none is wanted, and none gets in. */
static int receive_packet(int fd, struct mrs_packet *packet, enum mrs_packet_kind kind, int *passed)
{
	struct iovec data = {packet, sizeof(*packet)};
	union control control = {{0}};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	struct cmsghdr *header;
	ssize_t got;
	int rc = 0;

	if (passed) {
		message.msg_control = control.bytes;
		message.msg_controllen = sizeof(control.bytes);
	}
	mrs_fork_hold();
	got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (got < 0)
		rc = -errno;
	header = got > 0 && passed ? CMSG_FIRSTHDR(&message) : NULL;
	if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
	    header->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(passed, CMSG_DATA(header), sizeof(int));
	mrs_fork_release();
	if (rc)
		return rc == -EWOULDBLOCK || rc == -EINTR ? -EAGAIN : rc;
	if (!got)
		return -EPIPE;
	return got == sizeof(*packet) && packet->magic == MRS_PACKET_MAGIC && packet->kind == kind
		       ? 0
		       : -EPROTO;
}

/* ---- hashes ---- */

struct hashed {
	uint64_t role; /* enum mrs_packet_kind of the packet that carries it */
	uint64_t office;
	uint64_t slot;
	uint64_t generation;
	uint64_t challenge[2];
};

static uint64_t hash_of(const uint64_t key[2], enum mrs_packet_kind role, uint64_t office,
			const struct mrs_packet *who, const uint64_t challenge[2])
{
	struct hashed hashed = {
		.role = role,
		.office = office,
		.slot = who->slot,
		.generation = who->generation,
		.challenge = {challenge[0], challenge[1]},
	};

	return mrs_siphash(key, &hashed, sizeof(hashed));
}

static uint64_t pager_hash(struct morsel_pool *pool, uint64_t office, const struct mrs_packet *who,
			   const uint64_t challenge[2])
{
	const struct mrs_mail *mail = &mrs_pool_slot(pool, who->slot)->mail;
	uint64_t nonce[2] = {mrs_load_relaxed(&mail->nonce[0]), mrs_load_relaxed(&mail->nonce[1])};

	return hash_of(nonce, MRS_PACKET_ANSWER, office, who, challenge);
}

static uint64_t caller_hash(struct morsel_pool *pool, uint64_t office, const struct mrs_packet *who,
			    const uint64_t challenge[2])
{
	const struct mrs_state *state = mrs_pool_state(pool);
	uint64_t secret[2] = {mrs_load_relaxed(&state->pager_secret[0]),
			      mrs_load_relaxed(&state->pager_secret[1])};

	return hash_of(secret, MRS_PACKET_PROOF, office, who, challenge);
}

static int draw(uint64_t number[2])
{
	return getrandom(number, 16, 0) == 16 ? 0 : -errno;
}

/* ---- the caller ---- */

int mrs_handover_prepare(struct morsel_pool *pool)
{
	struct mrs_mail *mail = &mrs_pool_slot(pool, pool->slot)->mail;
	uint64_t nonce[2];
	int rc = draw(nonce);

	if (rc)
		return mrs_fail_errno(rc, "no random numbers to call on the pager with");
	mrs_store_relaxed(&mail->nonce[0], nonce[0]);
	mrs_store_release(&mail->nonce[1], nonce[1]);
	return 0;
}

int mrs_handover_hello(struct morsel_pool *pool, int fd, struct mrs_packet *hello)
{
	*hello = (struct mrs_packet){
		.kind = MRS_PACKET_HELLO,
		.slot = pool->slot,
		.generation = pool->slot_word >> 8,
	};
	return draw(hello->challenge) ? -EIO : send_packet(fd, hello, -1);
}

int mrs_handover_proof(struct morsel_pool *pool, uint64_t word, int fd,
		       const struct mrs_packet *hello, int uffd)
{
	struct mrs_packet answer, proof;
	int rc = receive_packet(fd, &answer, MRS_PACKET_ANSWER, NULL);

	if (rc)
		return rc;
	if (answer.hash != pager_hash(pool, word, hello, hello->challenge))
		return -EPERM;
	proof = (struct mrs_packet){
		.kind = MRS_PACKET_PROOF,
		.slot = hello->slot,
		.generation = hello->generation,
		.hash = caller_hash(pool, word, hello, answer.challenge),
	};
	MRS_PROBE("view.handover.proof");
	return send_packet(fd, &proof, uffd);
}

int mrs_handover_done(int fd)
{
	struct mrs_packet done;

	return receive_packet(fd, &done, MRS_PACKET_DONE, NULL);
}

/* ---- the pager ---- */

int mrs_handover_answer(struct morsel_pool *pool, uint64_t word, int fd, struct mrs_packet *session)
{
	struct mrs_packet hello, answer;
	int rc = receive_packet(fd, &hello, MRS_PACKET_HELLO, NULL);

	if (rc)
		return rc;
	if (hello.slot >= MRS_SLOTS ||
	    mrs_pool_slot_generation(pool, hello.slot) != hello.generation)
		return -EPERM;
	answer = (struct mrs_packet){
		.kind = MRS_PACKET_ANSWER,
		.slot = hello.slot,
		.generation = hello.generation,
		.hash = pager_hash(pool, word, &hello, hello.challenge),
	};
	rc = draw(answer.challenge);
	if (rc)
		return rc;
	*session = answer;
	return send_packet(fd, &answer, -1);
}

/* Only a userfaultfd is one: what else came is closed. */
static bool is_userfaultfd(int fd)
{
	static const char kind[] = "anon_inode:[userfaultfd]";
	char link[40], name[64] = "";
	ssize_t length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, name, sizeof(name) - 1);
	return length < 0 || !strncmp(name, kind, sizeof(kind) - 1);
}

int mrs_handover_accept(struct morsel_pool *pool, uint64_t word, int fd,
			const struct mrs_packet *session, int *uffd)
{
	struct mrs_packet proof;
	int rc = receive_packet(fd, &proof, MRS_PACKET_PROOF, uffd);

	if (rc)
		return rc;
	if (proof.slot != session->slot || proof.generation != session->generation ||
	    proof.hash != caller_hash(pool, word, session, session->challenge) ||
	    (*uffd >= 0 && !is_userfaultfd(*uffd)))
		return -EPERM;
	return 0;
}

int mrs_handover_admit(int fd)
{
	struct mrs_packet done = {.kind = MRS_PACKET_DONE};

	MRS_PROBE("view.handover.accepted");
	return send_packet(fd, &done, -1);
}

/* The peer of the tests of rdma/: wire.h. */
#include "rdma/wire.h"

#include <errno.h>
#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_NS 20000000000ll

static int64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static int say(const char *what)
{
	fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
	return -EIO;
}

/* ---- connecting ---- */

/* One that is made of an IPv4 address, where there is one. */
static int choose_gid(struct wire *wire)
{
	static const union ibv_gid none;

	wire->gid_index = -1;
	for (int i = 0; i < wire->port.gid_tbl_len; i++) {
		union ibv_gid gid;

		if (ibv_query_gid(wire->context, 1, i, &gid) || !memcmp(&gid, &none, sizeof(gid)))
			continue;
		if (wire->gid_index >= 0 && gid.raw[10] != 0xff)
			continue;
		wire->gid = gid;
		wire->gid_index = i;
	}
	return wire->gid_index < 0 ? say("the port has no address") : 0;
}

static int to_init(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
				   IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
	};

	return ibv_modify_qp(qp, &attr,
			     IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

static int to_receive(const struct wire *wire, struct ibv_qp *qp, const struct ibv_qp *other)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = wire->port.active_mtu,
		.dest_qp_num = other->qp_num,
		.max_dest_rd_atomic = 4,
		.min_rnr_timer = 12,
		.ah_attr = {.is_global = 1,
			    .port_num = 1,
			    .grh = {.dgid = wire->gid,
				    .sgid_index = (uint8_t)wire->gid_index,
				    .hop_limit = 4}},
	};

	return ibv_modify_qp(qp, &attr,
			     IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				     IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
				     IBV_QP_MIN_RNR_TIMER);
}

static int to_send(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS,
				   .timeout = 18,
				   .retry_cnt = 7,
				   .rnr_retry = 7,
				   .max_rd_atomic = 4};

	return ibv_modify_qp(qp, &attr,
			     IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

/* A pair that has seen an error is not used again: what was under way may still answer. */
static int make_pairs(struct wire *wire)
{
	struct ibv_qp_init_attr attr = {.qp_type = IBV_QPT_RC,
					.sq_sig_all = 1,
					.send_cq = wire->cq,
					.recv_cq = wire->cq,
					.cap = {.max_send_wr = 16,
						.max_recv_wr = 16,
						.max_send_sge = 8,
						.max_recv_sge = 1}};

	for (unsigned i = 0; i < 2; i++) {
		if (wire->qp[i])
			ibv_destroy_qp(wire->qp[i]);
		wire->qp[i] = ibv_create_qp(wire->pd, &attr);
		if (!wire->qp[i])
			return say("queue pairs");
	}
	return 0;
}

static int connect_both(struct wire *wire)
{
	struct ibv_wc done;
	int rc = make_pairs(wire);

	while (ibv_poll_cq(wire->cq, 1, &done) > 0)
		;
	for (unsigned i = 0; i < 2 && !rc; i++)
		rc = to_init(wire->qp[i]);
	for (unsigned i = 0; i < 2 && !rc; i++)
		rc = to_receive(wire, wire->qp[i], wire->qp[1 - i]);
	for (unsigned i = 0; i < 2 && !rc; i++)
		rc = to_send(wire->qp[i]);
	return rc ? say("connecting") : 0;
}

static int make_queues(struct wire *wire)
{
	wire->pd = ibv_alloc_pd(wire->context);
	wire->cq = ibv_create_cq(wire->context, 64, NULL, NULL, 0);
	return wire->pd && wire->cq ? 0 : say("a domain and a queue");
}

static void attribute(struct nlmsghdr *message, unsigned short type, const char *text)
{
	struct nlattr *at = (struct nlattr *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));

	at->nla_type = type;
	at->nla_len = (unsigned short)(NLA_HDRLEN + strlen(text) + 1);
	memcpy((char *)at + NLA_HDRLEN, text, strlen(text) + 1);
	message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + NLA_ALIGN(at->nla_len);
}

/* What `rdma link add rxe0 type rxe netdev dummy0` does, in the lab. */
static void make_soft(void)
{
	_Alignas(struct nlmsghdr) char room[256] = {0};
	struct nlmsghdr *message = (struct nlmsghdr *)room;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA);

	message->nlmsg_len = NLMSG_HDRLEN;
	message->nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_NEWLINK);
	message->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	attribute(message, RDMA_NLDEV_ATTR_DEV_NAME, "rxe0");
	attribute(message, RDMA_NLDEV_ATTR_NDEV_NAME, "dummy0");
	attribute(message, RDMA_NLDEV_ATTR_LINK_TYPE, "rxe");
	if (fd >= 0 && send(fd, message, message->nlmsg_len, 0) > 0)
		recv(fd, room, sizeof(room), 0);
	if (fd >= 0)
		close(fd);
}

static int open_first(struct wire *wire)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	if (getenv("MORSEL_LAB") && !(list && list[0])) {
		make_soft();
		list = ibv_get_device_list(NULL);
	}
	wire->context = list && list[0] ? ibv_open_device(list[0]) : NULL;
	if (list)
		ibv_free_device_list(list);
	return wire->context ? 0 : -ENODEV;
}

int wire_open(struct wire *wire)
{
	int rc;

	*wire = (struct wire){0};
	rc = open_first(wire);
	if (!rc && ibv_query_port(wire->context, 1, &wire->port))
		rc = say("ibv_query_port");
	if (!rc)
		rc = choose_gid(wire);
	if (!rc)
		rc = make_queues(wire);
	if (rc)
		return rc;
	wire->buffer = aligned_alloc(4096, WIRE_BYTES);
	wire->mr = ibv_reg_mr(wire->pd, wire->buffer, WIRE_BYTES,
			      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	return wire->mr ? connect_both(wire) : say("the peer's buffer");
}

void wire_close(struct wire *wire)
{
	for (unsigned i = 0; i < 2; i++)
		ibv_destroy_qp(wire->qp[i]);
	ibv_dereg_mr(wire->mr);
	ibv_destroy_cq(wire->cq);
	ibv_dealloc_pd(wire->pd);
	ibv_close_device(wire->context);
	free(wire->buffer);
}

/* ---- working ---- */

static int complete(struct wire *wire, unsigned expected)
{
	int64_t until = now_ns() + PATIENCE_NS;
	int status = 0;

	while (expected && now_ns() < until) {
		struct ibv_wc done;

		if (ibv_poll_cq(wire->cq, 1, &done) <= 0)
			continue;
		expected--;
		if (!status)
			status = done.status;
		if (status)
			break;
	}
	if (!status && !expected)
		return 0;
	if (connect_both(wire))
		return -EIO;
	if (status == IBV_WC_REM_ACCESS_ERR)
		return -EFAULT;
	fprintf(stderr, "wire: %s\n", status ? ibv_wc_status_str(status) : "no answer");
	return -EIO;
}

static int post(struct wire *wire, struct ibv_send_wr *work)
{
	struct ibv_send_wr *bad;

	return ibv_post_send(wire->qp[1], work, &bad) ? say("ibv_post_send") : complete(wire, 1);
}

static int transfer(struct wire *wire, enum ibv_wr_opcode opcode, uint64_t address, uint32_t rkey,
		    uint64_t bytes)
{
	struct ibv_sge own = {(uintptr_t)wire->buffer, (uint32_t)bytes, wire->mr->lkey};
	struct ibv_send_wr work = {.opcode = opcode, .sg_list = &own, .num_sge = 1};

	work.wr.rdma.remote_addr = address;
	work.wr.rdma.rkey = rkey;
	return post(wire, &work);
}

int wire_read(struct wire *wire, uint64_t address, uint32_t rkey, uint64_t bytes)
{
	return transfer(wire, IBV_WR_RDMA_READ, address, rkey, bytes);
}

int wire_write(struct wire *wire, uint64_t address, uint32_t rkey, uint64_t bytes)
{
	return transfer(wire, IBV_WR_RDMA_WRITE, address, rkey, bytes);
}

int wire_add(struct wire *wire, uint64_t address, uint32_t rkey, uint64_t addend)
{
	struct ibv_sge own = {(uintptr_t)wire->buffer, 8, wire->mr->lkey};
	struct ibv_send_wr work = {
		.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD, .sg_list = &own, .num_sge = 1};

	work.wr.atomic.remote_addr = address;
	work.wr.atomic.rkey = rkey;
	work.wr.atomic.compare_add = addend;
	return post(wire, &work);
}

int wire_send(struct wire *wire, struct ibv_sge *list, unsigned count)
{
	struct ibv_sge own = {(uintptr_t)wire->buffer, WIRE_BYTES, wire->mr->lkey};
	struct ibv_recv_wr receive = {.sg_list = &own, .num_sge = 1}, *bad_receive;
	struct ibv_send_wr work = {.opcode = IBV_WR_SEND, .sg_list = list, .num_sge = (int)count};
	struct ibv_send_wr *bad;

	if (ibv_post_recv(wire->qp[1], &receive, &bad_receive) ||
	    ibv_post_send(wire->qp[0], &work, &bad))
		return say("posting");
	return complete(wire, 2);
}

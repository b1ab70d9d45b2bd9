/*
 * A peer for the tests of rdma/: two reliably connected queue pairs of one process on the machine's
 * first RDMA device, in the lab the kernel's soft-RoCE. What the peer does goes through the device,
 * by address and rkey, as from another host.
 */
#ifndef TESTS_RDMA_WIRE_H
#define TESTS_RDMA_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include <infiniband/verbs.h>

struct wire {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp[2];
	union ibv_gid gid;
	int gid_index;
	struct ibv_port_attr port;
	unsigned char *buffer; /* of WIRE_BYTES, the peer's own */
	struct ibv_mr *mr;
};

#define WIRE_BYTES (1u << 20)

/* 0; -ENODEV: there is no RDMA device; others: it does not work. */
int wire_open(struct wire *wire);
void wire_close(struct wire *wire);

/*
 * The peer reads into its buffer, or writes from it; at most WIRE_BYTES. 0; -EFAULT: the device has
 * refused the access (the queue pairs are connected anew); -EIO: something else went wrong.
 */
int wire_read(struct wire *wire, uint64_t address, uint32_t rkey, uint64_t bytes);
int wire_write(struct wire *wire, uint64_t address, uint32_t rkey, uint64_t bytes);
/* Adds to 8 bytes; what they were lies at the beginning of the buffer. */
int wire_add(struct wire *wire, uint64_t address, uint32_t rkey, uint64_t addend);
/* The first queue pair sends what list describes, of this side's memory; it arrives in the buffer.
 */
int wire_send(struct wire *wire, struct ibv_sge *list, unsigned count);

#endif

// SPDX-License-Identifier: MIT
#ifndef ZSEAL_QUEUES_H
#define ZSEAL_QUEUES_H

#include <stdbool.h>
#include <stdint.h>

enum { QUEUES = 32, RECORDS = 4096, PAGE_SHIFT = 12 };
enum record_kind { REQUEST = 1, FINISHED = 2 };

/* Where a queue lies, and how far it was read: running indexes of 16 bits. */
struct queue {
	uint64_t descriptors;
	uint64_t available;
	uint64_t used;
	uint32_t size; /* 0: it is gone */
	uint32_t big_endian;
	uint16_t seen;
	uint16_t finished;
	uint32_t reserved;
};

struct record {
	uint16_t queue;
	uint16_t kind;
	uint32_t head;
	uint32_t amount; /* of a REQUEST's buffers; of bytes written to a FINISHED one's */
	uint32_t reserved;
	uint64_t readable; /* bytes of a REQUEST's buffers that the device reads ... */
	uint64_t writable; /* ... or writes */
};

/*
 * What zseal and the plugin share, in one file. After it come a byte for each page of the guest, its state, and then for
 * each queue a byte for each page, which is set once the queue has used the page. All is in the host's byte order.
 */
struct queue_watch {
	uint32_t size;	/* of this, for a check */
	uint32_t count; /* of `queues` that are to be looked at; 0: everything is zseal's */
	uint64_t pages;
	uint64_t setups; /* START SUBCHANNELs for which `queues` are right */
	uint32_t shared; /* bit N: the guest shares the pages in state N */
	uint32_t reserved;
	uint64_t notifications; /* that were let through */
	uint64_t written;	/* records so far ... */
	uint64_t read;		/* ... and those that zseal has taken; the others are in `records`, at their number % RECORDS */
	struct queue queues[QUEUES];
	struct record records[RECORDS];
};

/*
 * Looks at what was added to the queues since the last time, and returns whether all of it is plain: in shared pages and
 * in the usual form. If so, it is recorded; if not, nothing shows that it was looked at. `storage` is the guest's.
 */
bool zseal_all_plain(struct queue_watch *watch, const uint8_t *storage, uint64_t setups);

#endif

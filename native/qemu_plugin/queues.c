// SPDX-License-Identifier: MIT
/*
 * Looks at the virtio queues of a guest whose CPU is about to notify a device. Asking zseal takes half a millisecond, in
 * which that CPU stands still, and nearly always there is nothing to object to.
 *
 * src/zseal/guest/audit/queue.py decides what is right and wrong, and counts. This only recognises requests that lie in
 * shared pages in one of the usual forms (a chain of descriptors, or a table of them in order), and records what it saw.
 * zseal is asked about all others. The layout of what both share, in queues.h, is also in
 * src/zseal/engine/qemu/plugin_queues.py.
 *
 * The guest may change its storage while this reads it, so each value is read once. It may also describe more than should
 * be looked at in one go: zseal is asked about that as well.
 */

#include "queues.h"

enum { DESCRIPTOR_SIZE = 16, LONGEST = 1024, MOST_PAGES = 1 << 18, NEXT = 1, WRITE = 2, INDIRECT = 4 };

struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags;
	uint16_t next;
};

/* One look at one queue. */
struct look {
	struct queue_watch *watch;
	const struct queue *queue;
	const volatile uint8_t *storage;
	const volatile uint8_t *states;
	uint8_t *used;
	uint16_t number;
	uint32_t pages; /* that were looked at, a page as often as it was */
	uint64_t written;
	uint8_t walked[LONGEST]; /* for each descriptor of the queue */
};

static uint64_t get(const struct look *look, uint64_t address, unsigned int size)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < size; i++) {
		unsigned int shift = 8 * (look->queue->big_endian ? size - 1 - i : i);

		value |= (uint64_t)look->storage[address + i] << shift;
	}
	return value;
}

static bool in_storage(const struct look *look, uint64_t address, uint64_t length)
{
	uint64_t size = look->watch->pages << PAGE_SHIFT;

	return length && length <= size && address <= size - length;
}

/* Whether all of it is; marks as used what is. */
static bool shared(struct look *look, uint64_t address, uint64_t length)
{
	if (!in_storage(look, address, length))
		return false;
	for (uint64_t page = address >> PAGE_SHIFT; page <= (address + length - 1) >> PAGE_SHIFT; page++) {
		uint8_t state = look->states[page];

		if (state > 31 || !(look->watch->shared >> state & 1) || look->pages++ == MOST_PAGES)
			return false;
		look->used[page] = 1;
	}
	return true;
}

static struct descriptor descriptor_at(const struct look *look, uint64_t address)
{
	return (struct descriptor){
		.address = get(look, address, 8),
		.length = (uint32_t)get(look, address + 8, 4),
		.flags = (uint16_t)get(look, address + 12, 2),
		.next = (uint16_t)get(look, address + 14, 2),
	};
}

static struct record *add_record(struct look *look, enum record_kind kind, uint32_t head)
{
	struct record *record = &look->watch->records[look->written++ % RECORDS];

	*record = (struct record){.queue = look->number, .kind = (uint16_t)kind, .head = head};
	return record;
}

static bool add_buffer(struct look *look, struct record *record, const struct descriptor *buffer)
{
	record->amount++;
	if (buffer->flags & WRITE)
		record->writable += buffer->length;
	else
		record->readable += buffer->length;
	return shared(look, buffer->address, buffer->length);
}

static bool table_is_plain(struct look *look, struct record *record, uint64_t table, uint32_t length)
{
	uint32_t entries = length / DESCRIPTOR_SIZE;

	if (length % DESCRIPTOR_SIZE || entries > LONGEST || !shared(look, table, length))
		return false;
	for (uint32_t number = 0; number < entries; number++) {
		struct descriptor buffer = descriptor_at(look, table + DESCRIPTOR_SIZE * number);

		if (buffer.flags & INDIRECT || !add_buffer(look, record, &buffer))
			return false;
		if (!(buffer.flags & NEXT))
			return true;
		if (buffer.next != number + 1)
			return false;
	}
	return false;
}

static bool chain_is_plain(struct look *look, struct record *record, uint32_t number)
{
	while (number < look->queue->size && !look->walked[number]) {
		struct descriptor buffer = descriptor_at(look, look->queue->descriptors + DESCRIPTOR_SIZE * number);

		look->walked[number] = 1;
		if (buffer.flags & INDIRECT)
			return table_is_plain(look, record, buffer.address, buffer.length);
		if (!add_buffer(look, record, &buffer))
			return false;
		if (!(buffer.flags & NEXT))
			return true;
		number = buffer.next;
	}
	return false;
}

static bool rings_are_shared(struct look *look)
{
	const struct queue *queue = look->queue;

	return shared(look, queue->descriptors, (uint64_t)DESCRIPTOR_SIZE * queue->size) &&
	       shared(look, queue->available, 6 + (uint64_t)2 * queue->size) &&
	       shared(look, queue->used, 6 + (uint64_t)8 * queue->size);
}

static bool queue_is_plain(struct queue_watch *watch, const uint8_t *storage, uint16_t number)
{
	struct queue *queue = &watch->queues[number];
	uint8_t *states = (uint8_t *)(watch + 1);
	struct look look = {
		.watch = watch,
		.queue = queue,
		.storage = storage,
		.states = states,
		.used = states + (number + 1) * watch->pages,
		.number = number,
		.written = watch->written,
	};
	uint16_t added, finished;

	if (!in_storage(&look, queue->available, 4))
		return false;
	added = (uint16_t)(get(&look, queue->available + 2, 2) - queue->seen);
	if (!added)
		return true;
	if (!rings_are_shared(&look))
		return false;
	finished = (uint16_t)(get(&look, queue->used + 2, 2) - queue->finished);
	if (queue->size > LONGEST || finished > queue->size ||
	    added + finished > RECORDS - (watch->written - __atomic_load_n(&watch->read, __ATOMIC_ACQUIRE)))
		return false;
	for (uint16_t i = 0; i < finished; i++) {
		uint64_t entry = queue->used + 4 + 8 * ((uint16_t)(queue->finished + i) % queue->size);

		add_record(&look, FINISHED, (uint32_t)get(&look, entry, 4))->amount = (uint32_t)get(&look, entry + 4, 4);
	}
	for (uint16_t i = 0; i < added; i++) {
		uint64_t entry = queue->available + 4 + 2 * ((uint16_t)(queue->seen + i) % queue->size);
		uint32_t head = (uint32_t)get(&look, entry, 2);

		if (!chain_is_plain(&look, add_record(&look, REQUEST, head), head))
			return false;
	}
	queue->seen += added;
	queue->finished += finished;
	__atomic_store_n(&watch->written, look.written, __ATOMIC_RELEASE);
	return true;
}

bool zseal_all_plain(struct queue_watch *watch, const uint8_t *storage, uint64_t setups)
{
	if (!watch->count || watch->setups != setups)
		return false;
	for (uint16_t number = 0; number < watch->count; number++)
		if (watch->queues[number].size && !queue_is_plain(watch, storage, number))
			return false;
	watch->notifications++;
	return true;
}

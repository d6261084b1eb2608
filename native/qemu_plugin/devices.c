// SPDX-License-Identifier: MIT
/*
 * A DIAGNOSE 0x500 notifies a virtio device that there is work. zseal is asked about it, unless all that is new in the
 * queues is plain.
 *
 * Channel programs set up queues. So each question says how many of those began: as long as that number stays the same,
 * the queues are where they were.
 */

#include "plugin.h"
#include "queues.h"

static struct {
	bool watched;
	struct queue_watch *queues; /* NULL: each notification is asked about */
	const uint8_t *storage;
	uint32_t starts;
} devices;

static void *map(int file, uint64_t size)
{
	void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

	if (found == MAP_FAILED)
		return NULL;
	madvise(found, size, MADV_DONTDUMP); /* a crash of QEMU leaves nothing of the guest, as zseal asks of QEMU itself */
	return found;
}

static bool map_queues(int queues, int storage)
{
	struct queue_watch *head = map(queues, sizeof(*head));

	if (!head || head->size != sizeof(*head))
		return false;
	devices.storage = map(storage, head->pages << PAGE_SHIFT);
	devices.queues = map(queues, sizeof(*head) + head->pages * (1 + QUEUES));
	return devices.storage && devices.queues;
}

bool devices_watch(int queues, int storage)
{
	devices.watched = true;
	return queues < 0 || map_queues(queues, storage);
}

bool devices_are_watched(void)
{
	return devices.watched;
}

void device_notified(uint32_t cpu)
{
	uint64_t setups = __atomic_load_n(&devices.starts, __ATOMIC_SEQ_CST);
	bool plain = false;

	if (!devices.watched)
		return;
	if (devices.queues) {
		channel_hold();
		plain = zseal_all_plain(devices.queues, devices.storage, setups);
		channel_release();
	}
	if (!plain)
		channel_ask(NOTIFICATION, cpu, setups);
}

void device_subchannel_started(void)
{
	__atomic_fetch_add(&devices.starts, 1, __ATOMIC_SEQ_CST);
}

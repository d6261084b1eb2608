// SPDX-License-Identifier: MIT
/*
 * The stream socket to zseal. A message of the plugin is a `struct message` in the host's byte order. zseal answers with
 * one byte, GO, and the CPU goes on. BEGIN (the guest begins) and KERNEL (the kernel proper begins) come while the
 * machine stands still.
 */

#include "plugin.h"

enum order { GO = 1, BEGIN = 2, KERNEL = 3 };

struct message {
	uint32_t kind; /* an `enum event` up to LOAD */
	uint32_t cpu;  /* its number */
	/* READY: abilities. NOTIFICATION: START SUBCHANNELs so far, of all CPUs. Else the instruction's address */
	uint64_t value;
};

static struct {
	int socket;
	/* glibc and musl both take zeros for an unlocked mutex; theirs have 40 to 64 bytes */
	uint64_t mutex[16];
} channel;

static bool say(enum event event, uint32_t cpu, uint64_t value)
{
	struct message message = {event, cpu, value};

	return send(channel.socket, &message, sizeof(message), MSG_NOSIGNAL) == sizeof(message);
}

bool channel_open(int socket)
{
	channel.socket = socket;
	return say(READY, 0, lock_abilities());
}

void channel_say_ready(void)
{
	say(READY, 0, lock_abilities());
}

static void obey(char order)
{
	if (order == BEGIN)
		lock_end_calibration();
	else if (order == KERNEL)
		translation_kernel_begins();
}

/* A guest whose zseal is gone must not go on. */
static void stay(void)
{
	for (;;)
		pause();
}

void channel_ask(enum event event, uint32_t cpu, uint64_t value)
{
	char answer = 0;

	channel_hold();
	if (!say(event, cpu, value))
		stay();
	while (answer != GO) {
		if (recv(channel.socket, &answer, 1, 0) != 1)
			stay();
		obey(answer);
	}
	channel_release();
}

void channel_take_orders(void)
{
	char order;

	if (pthread_mutex_trylock(channel.mutex))
		return;
	while (recv(channel.socket, &order, 1, MSG_DONTWAIT) == 1)
		obey(order);
	channel_release();
}

void channel_hold(void)
{
	pthread_mutex_lock(channel.mutex);
}

void channel_release(void)
{
	pthread_mutex_unlock(channel.mutex);
}

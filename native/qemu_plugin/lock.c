// SPDX-License-Identifier: MIT
/* QEMU's global lock. What is done here to QEMU, and why it is safe, is in docs/plugin.md. */

#include "plugin.h"

static struct {
	lock_function take; /* QEMU's own; NULL: the lock is not watched */
	bool calibrating;
	bool calibrated;
} lock;

/* What this thread's CPU executes next, to learn from; READY if there is nothing to learn. */
static __thread enum event expected;

bool lock_can_be_passed(void)
{
	return (bql_lock_impl && bql_unlock) || (qemu_mutex_lock_iothread_impl && qemu_mutex_unlock_iothread);
}

void lock_pass(void)
{
	if (bql_lock_impl && bql_unlock) {
		bql_lock_impl("", 0);
		bql_unlock();
	} else if (lock_can_be_passed()) {
		qemu_mutex_lock_iothread_impl("", 0);
		qemu_mutex_unlock_iothread();
	}
}

uint64_t lock_abilities(void)
{
	return (lock_can_be_passed() ? EXACT : 0) | (lock.take ? CALIBRATABLE : 0) | (lock.calibrated ? CALIBRATED : 0);
}

bool lock_is_calibrating(void)
{
	return lock.calibrating;
}

bool lock_is_calibrated(void)
{
	return lock.calibrated;
}

void lock_end_calibration(void)
{
	lock.calibrated = calibration_is_complete();
	channel_say_ready();
	__atomic_store_n(&lock.calibrating, false, __ATOMIC_SEQ_CST);
}

bool lock_takes_over(enum event event)
{
	if (lock.calibrating)
		expected = event;
	return lock.calibrating || lock.calibrated;
}

static void on_learned(enum event event, const char *file, int line)
{
	uint64_t address;

	if (event != CALL || cpu_is_at_call(&address))
		calibration_learn(event, file, line);
}

static void on_seen(enum event event)
{
	uint64_t address;

	if (event == CALL && cpu_is_at_call(&address))
		channel_ask(CALL, cpu_number(), address);
	else if (event == NOTIFICATION)
		device_notified(cpu_number());
	else if (event == START)
		device_subchannel_started();
	else if (event == RESET)
		translation_watch(true);
}

/* Stands in for lock.take. QEMU's main thread takes the lock as well, before it looks at what woke it (an order, say). */
static void on_lock(void *mutex, const char *file, int line)
{
	enum event event = expected;

	if (!cpu_is_current()) {
		channel_take_orders();
	} else {
		expected = READY;
		if (event != READY)
			on_learned(event, file, line);
		else if (lock.calibrated)
			on_seen(calibration_find(file, line));
	}
	lock.take(mutex, file, line);
}

void lock_watch(const struct qemu_info *info)
{
	lock_function *variable = &bql_mutex_lock_func ? &bql_mutex_lock_func : &qemu_bql_mutex_lock_func;

	if (!variable || !qemu_get_cpu || !s390_cpu_gdb_read_register || !cpu_memory_rw_debug || !g_byte_array_new ||
	    !g_byte_array_set_size || !dlsym(NULL, "current_cpu") || info->version.cur > NEWEST_KNOWN)
		return;
	lock.take = *variable;
	lock.calibrating = true;
	__atomic_store_n(variable, on_lock, __ATOMIC_SEQ_CST);
}

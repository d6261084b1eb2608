// SPDX-License-Identifier: MIT
/*
 * A plugin for QEMU's TCG that holds a CPU in front of some instructions until zseal lets it go on. docs/plugin.md
 * explains how it works, why that is safe, and what happens if an assumption does not hold. Its parts:
 *
 *     install.c      the version, the options, and the start of the other parts
 *     channel.c      messages to zseal, and orders from it
 *     translation.c  sees instructions when QEMU translates them
 *     lock.c         sees them when a CPU takes QEMU's global lock instead
 *     calibration.c  which call site of the lock stands for which instruction
 *     cpu.c          the CPU that the calling thread executes
 *     halt.c         a CPU that QEMU forgets to wake
 *     devices.c      notifications of virtio devices
 *     queues.c       whether all that is new in their queues is plain
 */

#ifndef ZSEAL_PLUGIN_H
#define ZSEAL_PLUGIN_H

#include "qemu.h"

/* READY to LOAD are also the kinds of a message; RESET and NOTHING are only call sites of the lock. */
enum event {
	READY = 0,	  /* the plugin has started, or has taken BEGIN: not answered */
	NOTIFICATION = 1, /* DIAGNOSE 0x500 */
	CALL = 2,	  /* UVC */
	ENTRY = 3,	  /* the instruction at the address where kernels begin */
	LOAD = 4,	  /* LPSWE, from ENTRY to KERNEL */
	START = 5,	  /* START SUBCHANNEL */
	RESET = 6,	  /* DIAGNOSE 0x308 */
	NOTHING = 7,	  /* DIAGNOSE 0x44, for which no lock is taken */
	EVENTS
};

/* A READY's value: LOADs will come; the lock can be calibrated; it is */
enum ability { EXACT = 1, CALIBRATABLE = 2, CALIBRATED = 4 };

enum { UVC = 0xb9a4 };

/* Sends the first READY; false if that fails. */
bool channel_open(int socket);
/* Sends READY again, with what the plugin can do now. */
void channel_say_ready(void);
/* Returns when zseal lets the CPU go on; never if zseal is gone. */
void channel_ask(enum event event, uint32_t cpu, uint64_t value);
/* Takes the orders that wait, unless another thread is waiting for an answer: it takes them. */
void channel_take_orders(void);
/* Between these no other thread asks anything, and zseal changes nothing that both share. */
void channel_hold(void);
void channel_release(void);

void translation_start(plugin_id id, const struct qemu_info *info, uintptr_t entry);
void translation_watch(bool whether);
/* The kernel proper begins: LPSWEs are not of interest any more, nor are translations if the lock is calibrated. */
void translation_kernel_begins(void);

/* Replaces the function that takes QEMU's lock. No effect if QEMU lacks something, or is newer than those looked at. */
void lock_watch(const struct qemu_info *info);
/* A set of `enum ability`. */
uint64_t lock_abilities(void);
/* Whether QEMU exports what lock_pass needs. */
bool lock_can_be_passed(void);
/* Takes QEMU's lock and gives it back: not before the main thread has done what it holds the lock for. */
void lock_pass(void);
/* CPUs execute examples until lock_end_calibration, after which lock_is_calibrated says whether that was of use. */
bool lock_is_calibrating(void);
bool lock_is_calibrated(void);
void lock_end_calibration(void);
/* A CPU is about to execute `event`: whether that is left to the lock, to be learned or to be seen. */
bool lock_takes_over(enum event event);

void calibration_learn(enum event event, const char *file, int line);
/* Whether there is a place for each event, and no two have the same one. */
bool calibration_is_complete(void);
/* The event whose place this is; NOTHING if there is none. */
enum event calibration_find(const char *file, int line);

/* Whether the calling thread executes a CPU; the other two are for such a thread only. */
bool cpu_is_current(void);
uint32_t cpu_number(void);
/* Whether it is at a UVC, and at which address. */
bool cpu_is_at_call(uint64_t *address);

/* Keeps CPUs from halting after they were woken. No effect if QEMU lacks something. */
void halt_watch(plugin_id id);

/* Watches devices. With descriptors >= 0 it shares `queues` with zseal and `storage` with the guest; false if it cannot. */
bool devices_watch(int queues, int storage);
bool devices_are_watched(void);
/* A CPU is about to execute a DIAGNOSE 0x500; no effect if devices are not watched. */
void device_notified(uint32_t cpu);
void device_subchannel_started(void);

#endif

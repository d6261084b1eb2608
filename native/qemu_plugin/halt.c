// SPDX-License-Identifier: MIT
/*
 * A CPU that QEMU forgets to wake. A SIGP STOP halts a CPU twice: directly, and by an interrupt of QEMU's own that the
 * CPU finds next. If QEMU was told to let its CPUs go on in between, as after every stop of the machine, the CPU leaves
 * its loop before it finds the interrupt, and does so at its next start instead: SIGP START or RESTART then wakes a CPU
 * that halts again immediately, forever.
 *
 * A CPU that is idle while the machine runs is halted. An interrupt that is to halt it has nothing left to do.
 */

#include "plugin.h"

static void on_idle(plugin_id id, unsigned int number)
{
	struct cpu *cpu = qemu_get_cpu((int)number);

	(void)id;
	if (cpu && !cpu_is_stopped(cpu))
		cpu_reset_interrupt(cpu, INTERRUPT_HALT);
}

void halt_watch(plugin_id id)
{
	if (qemu_get_cpu && cpu_is_stopped && cpu_reset_interrupt)
		qemu_plugin_register_vcpu_idle_cb(id, on_idle);
}

// SPDX-License-Identifier: MIT
/* Instructions that are recognised when QEMU translates them: QEMU calls the plugin before a CPU executes them. */

#include "plugin.h"

enum opcode {
	DIAGNOSE = 0x83,
	DIAGNOSE_YIELD = 0x0044,
	DIAGNOSE_RESET = 0x0308,
	DIAGNOSE_NOTIFY = 0x0500,
	LPSWE = 0xb2b2,
	START_SUBCHANNEL = 0xb233
};
enum { SIZE = 4 }; /* bytes of each of them */

static struct {
	plugin_id self;
	bool copied; /* qemu_plugin_insn_data copies */
	void *callback; /* on_translation, in the form that this QEMU calls */
	uintptr_t entry;
	bool booting; /* between ENTRY and KERNEL */
} translation;

static void on_notification(unsigned int cpu, void *userdata)
{
	(void)userdata;
	if (!lock_takes_over(NOTIFICATION))
		device_notified(cpu);
}

static void on_call(unsigned int cpu, void *address)
{
	if (!lock_takes_over(CALL))
		channel_ask(CALL, cpu, (uintptr_t)address);
}

static void on_entry(unsigned int cpu, void *address)
{
	__atomic_store_n(&translation.booting, true, __ATOMIC_SEQ_CST);
	channel_ask(ENTRY, cpu, (uintptr_t)address);
	lock_pass();
}

static void on_load(unsigned int cpu, void *address)
{
	if (!__atomic_load_n(&translation.booting, __ATOMIC_SEQ_CST))
		return;
	channel_ask(LOAD, cpu, (uintptr_t)address);
	lock_pass();
}

static void on_start(unsigned int cpu, void *userdata)
{
	(void)cpu;
	(void)userdata;
	if (!lock_takes_over(START))
		device_subchannel_started();
}

static void on_reset(unsigned int cpu, void *userdata)
{
	(void)cpu;
	(void)userdata;
	lock_takes_over(RESET);
}

static void on_yield(unsigned int cpu, void *userdata)
{
	(void)cpu;
	(void)userdata;
	lock_takes_over(NOTHING);
}

static instruction_callback callback_for(const uint8_t *code)
{
	uint32_t opcode = (uint32_t)code[0] << 8 | code[1], function = (uint32_t)code[2] << 8 | code[3];
	bool calibrating = lock_is_calibrating(), devices = devices_are_watched() || calibrating;

	if (code[0] == DIAGNOSE && function == DIAGNOSE_NOTIFY)
		return devices ? on_notification : NULL;
	if (code[0] == DIAGNOSE && function == DIAGNOSE_RESET)
		return calibrating ? on_reset : NULL;
	if (code[0] == DIAGNOSE && function == DIAGNOSE_YIELD)
		return calibrating ? on_yield : NULL;
	if (opcode == START_SUBCHANNEL)
		return devices ? on_start : NULL;
	if (opcode == UVC)
		return on_call;
	if (opcode == LPSWE)
		return lock_can_be_passed() && __atomic_load_n(&translation.booting, __ATOMIC_SEQ_CST) ? on_load : NULL;
	return NULL;
}

static void on_instruction(struct qemu_plugin_insn *insn)
{
	void *address = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);
	instruction_callback callback;
	uint8_t copy[8];
	uintptr_t data;

	if ((uintptr_t)address == translation.entry)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_entry, CALLBACK_WITHOUT_REGISTERS, address);
	if (qemu_plugin_insn_size(insn) != SIZE)
		return;
	data = qemu_plugin_insn_data(insn, copy, sizeof(copy));
	callback = callback_for(translation.copied ? copy : (const uint8_t *)data);
	if (callback)
		qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, CALLBACK_WITHOUT_REGISTERS, address);
}

static void on_block(const struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb);

	for (size_t i = 0; i < count; i++)
		on_instruction(qemu_plugin_tb_get_insn(tb, i));
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb)
{
	(void)id;
	on_block(tb);
}

static void on_newer_translation(struct qemu_plugin_tb *tb, void *userdata)
{
	(void)userdata;
	on_block(tb);
}

void translation_start(plugin_id id, const struct qemu_info *info, uintptr_t entry)
{
	translation.self = id;
	translation.copied = info->version.cur >= INSN_DATA_IS_COPIED_FROM;
	translation.callback = info->version.cur >= USER_DATA_FROM ? (void *)on_newer_translation : (void *)on_translation;
	translation.entry = entry;
	translation_watch(true);
}

void translation_watch(bool whether)
{
	qemu_plugin_register_vcpu_tb_trans_cb(translation.self, whether ? translation.callback : NULL, NULL);
}

void translation_kernel_begins(void)
{
	__atomic_store_n(&translation.booting, false, __ATOMIC_SEQ_CST);
	if (lock_is_calibrated())
		translation_watch(false);
}

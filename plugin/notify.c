// SPDX-License-Identifier: MIT
/*
 * A plugin for QEMU's TCG that stops a CPU in front of some instructions until zseal says that it may go on: DIAGNOSE
 * 0x500, the hypervisor call by which a guest tells a virtio device that there is work, UVC, the ultravisor call, the
 * one at the address where kernels begin, and each LPSWE from there to the kernel proper, which one of them starts.
 *
 * A breakpoint could do the same, but it makes QEMU throw away all code it has translated, which takes a guest tens of
 * milliseconds to make up for, and as long as there is any all code slow. Here the one CPU waits in the middle of a
 * translated block.
 *
 *     -plugin FILE,socket=N,entry=ADDRESS[,notifications=off]      N: an inherited stream socket; both decimal
 *
 * Each time sixteen bytes are sent in the host's byte order: which of them it is and the number of the CPU (32 bits
 * each, see `enum kind`), and a value of 64 bits. For a DIAGNOSE that is how many START SUBCHANNELs all CPUs began so
 * far: queues are set up by channel programs, so as long as that number stays, they are where they were. For the others
 * it is the address of the instruction. One byte in answer (`enum answer`) lets the CPU go on. Without an answer it
 * waits for ever: a guest whose zseal is gone must not go on.
 *
 * Who answers may have asked QEMU to stop its CPUs meanwhile. An LPSWE must be the last thing then that this one does.
 * QEMU's main thread holds its global lock from the receipt of such a request until all CPUs are told to stop, so the
 * CPU takes that lock and gives it back before it goes on. The lock belongs to no plugin interface, but a QEMU that can
 * load modules exports it; whether it is there is told in a message of its own at the start, and without it no LPSWE is
 * waited at.
 *
 * Nothing is linked: QEMU itself has the C library and the functions of its plugin interface, which are declared here
 * as far as they are used. They differ between versions of that interface (numbers as in QEMU's qemu-plugin.h):
 *
 *     1   QEMU 6.0 to 8.2    qemu_plugin_insn_data returns a pointer to the instruction
 *     2   QEMU 9.0           the same; qemu_plugin_n_vcpus is gone, plugins for version 1 are refused
 *     3   QEMU 9.1           qemu_plugin_insn_data copies the instruction and returns its length
 *     4   QEMU 9.2           qemu_plugin_read_memory_vaddr
 *     5   QEMU 10.1          qemu_plugin_translate_vaddr
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;

struct qemu_info {
	const char *target_name;
	struct {
		int min;
		int cur;
	} version;
	bool system_emulation;
};

enum { CALLBACK_WITHOUT_REGISTERS = 0, INSN_DATA_IS_COPIED_FROM = 3 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*callback)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, void (*callback)(unsigned int, void *),
					    int flags, void *userdata);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
/* with the arguments of version 3, which older ones do not look at */
uintptr_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *buffer, size_t size);

/* only their presence is asked for */
extern const char qemu_plugin_n_vcpus[] __attribute__((weak));
extern const char qemu_plugin_read_memory_vaddr[] __attribute__((weak));
extern const char qemu_plugin_translate_vaddr[] __attribute__((weak));

/* QEMU's global lock, up to 8.2 and since */
void qemu_mutex_lock_iothread_impl(const char *file, int line) __attribute__((weak));
void qemu_mutex_unlock_iothread(void) __attribute__((weak));
void bql_lock_impl(const char *file, int line) __attribute__((weak));
void bql_unlock(void) __attribute__((weak));

ptrdiff_t send(int socket, const void *data, size_t size, int flags);
ptrdiff_t recv(int socket, void *data, size_t size, int flags);
int pause(void);
int pthread_mutex_lock(void *mutex);
int pthread_mutex_unlock(void *mutex);

#define EXPORT __attribute__((visibility("default")))
#define MSG_NOSIGNAL 0x4000

EXPORT int qemu_plugin_version;

/* QEMU looks at the version before it calls anything but this. */
__attribute__((constructor)) static void choose_version(void)
{
	if (qemu_plugin_n_vcpus)
		qemu_plugin_version = 1;
	else if (qemu_plugin_translate_vaddr)
		qemu_plugin_version = 5;
	else if (qemu_plugin_read_memory_vaddr)
		qemu_plugin_version = 4;
	else
		qemu_plugin_version = 2;
}

enum opcode { DIAGNOSE = 0x83, DIAGNOSE_NOTIFY = 0x0500, UVC = 0xb9a4, LPSWE = 0xb2b2, START_SUBCHANNEL = 0xb233 };
/* READY comes once, unasked for and unanswered; its value is 1 where each LOAD will come */
enum kind { READY = 0, NOTIFICATION = 1, CALL = 2, ENTRY = 3, LOAD = 4 };
/* BEGUN has the kernel proper: go on, and no LPSWE is of interest until ENTRY comes again */
enum answer { GO = 1, BEGUN = 2 };

struct message {
	uint32_t kind;
	uint32_t cpu;
	uint64_t value;
};

static int channel = -1, entry = -1;
static bool copied;
static bool notifications = true;
static bool booting;
static uint32_t starts;
/* glibc and musl both take zeros for an unlocked mutex; theirs have 40 to 64 bytes */
static uint64_t one_at_a_time[16];

static bool has_lock(void)
{
	return (bql_lock_impl && bql_unlock) || (qemu_mutex_lock_iothread_impl && qemu_mutex_unlock_iothread);
}

static void wait_for_lock(void)
{
	if (bql_lock_impl && bql_unlock) {
		bql_lock_impl("", 0);
		bql_unlock();
	} else if (has_lock()) {
		qemu_mutex_lock_iothread_impl("", 0);
		qemu_mutex_unlock_iothread();
	}
}

static void ask(enum kind kind, uint32_t cpu, uint64_t value)
{
	struct message message = {kind, cpu, value};
	char answer;

	pthread_mutex_lock(one_at_a_time);
	if (send(channel, &message, sizeof(message), MSG_NOSIGNAL) != sizeof(message) ||
	    recv(channel, &answer, 1, 0) != 1)
		for (;;)
			pause();
	if (answer == BEGUN)
		__atomic_store_n(&booting, false, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(one_at_a_time);
}

static void on_diagnose(unsigned int cpu, void *userdata)
{
	(void)userdata;
	ask(NOTIFICATION, cpu, __atomic_load_n(&starts, __ATOMIC_SEQ_CST));
}

static void on_call(unsigned int cpu, void *address)
{
	ask(CALL, cpu, (uintptr_t)address);
}

static void on_entry(unsigned int cpu, void *address)
{
	__atomic_store_n(&booting, true, __ATOMIC_SEQ_CST);
	ask(ENTRY, cpu, (uintptr_t)address);
	wait_for_lock();
}

static void on_load(unsigned int cpu, void *address)
{
	if (!__atomic_load_n(&booting, __ATOMIC_SEQ_CST))
		return;
	ask(LOAD, cpu, (uintptr_t)address);
	wait_for_lock();
}

static void on_start_subchannel(unsigned int cpu, void *userdata)
{
	(void)cpu;
	(void)userdata;
	__atomic_fetch_add(&starts, 1, __ATOMIC_SEQ_CST);
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb);

	(void)id;
	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		const uint8_t *code;
		uint8_t copy[8];
		uintptr_t data;
		uint32_t opcode;
		void *address = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);

		if (address == (void *)(uintptr_t)entry)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_entry, CALLBACK_WITHOUT_REGISTERS, address);
		if (qemu_plugin_insn_size(insn) != 4)
			continue;
		data = qemu_plugin_insn_data(insn, copy, sizeof(copy));
		code = copied ? copy : (const uint8_t *)data;
		opcode = (uint32_t)code[0] << 8 | code[1];
		if (notifications && code[0] == DIAGNOSE && (code[2] << 8 | code[3]) == DIAGNOSE_NOTIFY)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_diagnose, CALLBACK_WITHOUT_REGISTERS, NULL);
		else if (notifications && opcode == START_SUBCHANNEL)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_start_subchannel, CALLBACK_WITHOUT_REGISTERS,
							       NULL);
		else if (opcode == UVC)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_call, CALLBACK_WITHOUT_REGISTERS, address);
		else if (opcode == LPSWE && has_lock() && __atomic_load_n(&booting, __ATOMIC_SEQ_CST))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_load, CALLBACK_WITHOUT_REGISTERS, address);
	}
}

static bool equal(const char *left, const char *right)
{
	while (*left && *left == *right)
		left++, right++;
	return *left == *right;
}

static int number_behind(const char *text, const char *name)
{
	int number = 0;

	while (*name)
		if (*text++ != *name++)
			return -1;
	if (!*text)
		return -1;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || number > 1000000)
			return -1;
		number = number * 10 + (*text - '0');
	}
	return number;
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		if (equal(argv[i], "notifications=off"))
			notifications = false;
		else if (number_behind(argv[i], "socket=") >= 0)
			channel = number_behind(argv[i], "socket=");
		else if (number_behind(argv[i], "entry=") >= 0)
			entry = number_behind(argv[i], "entry=");
		else
			return -1;
	}
	if (channel < 0 || entry < 0)
		return -1;
	if (send(channel, &(struct message){READY, 0, has_lock()}, sizeof(struct message), MSG_NOSIGNAL) !=
	    sizeof(struct message))
		return -1;
	copied = info->version.cur >= INSN_DATA_IS_COPIED_FROM;
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return 0;
}

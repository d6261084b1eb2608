// SPDX-License-Identifier: MIT
/*
 * A plugin for QEMU's TCG that stops a CPU in front of some instructions until zseal says that it may go on: DIAGNOSE
 * 0x500, the hypervisor call by which a guest tells a virtio device that there is work, UVC, the ultravisor call, the
 * one at the address where kernels begin, and each LPSWE from there to the kernel proper, which one of them starts.
 *
 * A breakpoint could do the same, but it makes QEMU throw away all code it has translated, which takes a guest tens of
 * milliseconds to make up for, and as long as there is any all code slow. Here the one CPU waits in the middle of a
 * translated block, or where QEMU is about to take its global lock for what the instruction asks for.
 *
 *     -plugin FILE,socket=N,entry=ADDRESS[,notifications=off][,queues=N,storage=N]
 *
 * Numbers are decimal, each N is that of an inherited descriptor: a stream socket, what queues.h describes, and the
 * guest's storage. A DIAGNOSE by which nothing but plain requests are told of is let through, see queues.c.
 *
 * Each time sixteen bytes are sent in the host's byte order: which of them it is and the number of the CPU (32 bits
 * each, see `enum kind`), and a value of 64 bits. For a DIAGNOSE that is how many START SUBCHANNELs all CPUs began so
 * far: queues are set up by channel programs, so as long as that number stays, they are where they were. For the others
 * it is the address of the instruction. One byte in answer, GO, lets the CPU go on. Without it the CPU waits for ever: a
 * guest whose zseal is gone must not go on. Other bytes (`enum order`) may come while the machine stands still. They are
 * taken before it is resumed, by QEMU's main thread, which takes the lock (below) before it looks at what woke it; else
 * by the CPU that asks next.
 *
 * Who answers may have asked QEMU to stop its CPUs meanwhile. An LPSWE must be the last thing then that this one does.
 * QEMU's main thread holds its global lock from the receipt of such a request until all CPUs are told to stop, so the
 * CPU takes that lock and gives it back before it goes on. Where QEMU does not export the lock, no LPSWE is waited at.
 *
 * Looking at what is translated costs a guest some of its speed, and since QEMU 9.2 also at what is executed. A running
 * kernel is seen otherwise: QEMU takes its global lock through a function that can be replaced, for a DIAGNOSE, for a
 * START SUBCHANNEL, and for the operation exception that a UVC is to it. What it takes it for only the place in its
 * source tells, and that is learned: until BEGIN the machine executes one of each, one by one, and what is translated is
 * looked at. LEAVE ends that, where all were learned, and a DIAGNOSE 0x308 begins it anew: no kernel follows another one
 * without.
 */

#include "qemu.h"
#include "queues.h"

#define EXPORT __attribute__((visibility("default")))

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

enum opcode {
	DIAGNOSE = 0x83,
	DIAGNOSE_YIELD = 0x0044,
	DIAGNOSE_RESET = 0x0308,
	DIAGNOSE_NOTIFY = 0x0500,
	UVC = 0xb9a4,
	LPSWE = 0xb2b2,
	START_SUBCHANNEL = 0xb233
};
/* READY comes first, and after BEGIN again, unanswered; from START on they are never told, but have `places` */
enum kind { READY = 0, NOTIFICATION = 1, CALL = 2, ENTRY = 3, LOAD = 4, START = 5, RESET = 6, NOTHING = 7, KINDS };
enum order { GO = 1, BEGIN = 2, LEAVE = 3 };
/* a READY's value: LOADs will come; there is something to learn; it was learned */
enum ability { EXACT = 1, TEACHABLE = 2, LEARNED = 4 };

struct message {
	uint32_t kind;
	uint32_t cpu;
	uint64_t value;
};

static plugin_id self;
static int channel = -1, entry = -1;
static uint64_t abilities;
static bool copied;
static bool notifications = true;
static bool learning = true, learned;
static bool booting;
static uint32_t starts;
static struct queue_watch *queues;
static const uint8_t *storage;
/* glibc and musl both take zeros for an unlocked mutex; theirs have 40 to 64 bytes */
static uint64_t one_at_a_time[16];

/* Where QEMU takes its global lock for each kind, as far as it was learned, and the function that really does */
static struct place {
	const char *file;
	int line;
} places[KINDS];
static lock_function take_lock;

/* Each thread's own: what its CPU executes next, to learn by; its `current_cpu`; room for a register */
static __thread enum kind expected;
static __thread struct cpu **current;
static __thread struct byte_array *bytes;

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

static bool is(enum kind kind, const char *file, int line)
{
	return places[kind].file == file && places[kind].line == line;
}

/*
 * Whether all places are known. One for which no lock was taken has got that of what came next, which others have, too:
 * the exception, or the end of a step, which is all there is to learn from a NOTHING.
 */
static bool all_learned(void)
{
	static const enum kind known[] = {NOTIFICATION, CALL, START, RESET, NOTHING};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (!places[known[i]].file)
			return false;
		for (size_t j = 0; j < i; j++)
			if (is(known[i], places[known[j]].file, places[known[j]].line))
				return false;
	}
	return true;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb);

static void watch(bool whether)
{
	qemu_plugin_register_vcpu_tb_trans_cb(self, whether ? on_translation : NULL);
}

static bool say_ready(uint64_t value)
{
	struct message message = {READY, 0, value};

	return send(channel, &message, sizeof(message), MSG_NOSIGNAL) == sizeof(message);
}

static void obey(char order)
{
	if (order == BEGIN) {
		learned = all_learned();
		say_ready(abilities | (learned ? LEARNED : 0));
		__atomic_store_n(&learning, false, __ATOMIC_SEQ_CST);
	} else if (order == LEAVE) {
		__atomic_store_n(&booting, false, __ATOMIC_SEQ_CST);
		if (learned)
			watch(false);
	}
}

static void ask(enum kind kind, uint32_t cpu, uint64_t value)
{
	struct message message = {kind, cpu, value};
	char answer = 0;

	pthread_mutex_lock(one_at_a_time);
	if (send(channel, &message, sizeof(message), MSG_NOSIGNAL) != sizeof(message))
		for (;;)
			pause();
	while (answer != GO) {
		if (recv(channel, &answer, 1, 0) != 1)
			for (;;)
				pause();
		obey(answer);
	}
	pthread_mutex_unlock(one_at_a_time);
}

/* Whoever waits for an answer takes the orders before it as well. */
static void take_orders(void)
{
	char order;

	if (pthread_mutex_trylock(one_at_a_time))
		return;
	while (recv(channel, &order, 1, MSG_DONTWAIT) == 1)
		obey(order);
	pthread_mutex_unlock(one_at_a_time);
}

static void ask_of_notification(uint32_t cpu)
{
	uint64_t setups = __atomic_load_n(&starts, __ATOMIC_SEQ_CST);
	bool plain = false;

	if (queues) {
		pthread_mutex_lock(one_at_a_time);
		plain = zseal_all_plain(queues, storage, setups);
		pthread_mutex_unlock(one_at_a_time);
	}
	if (!plain)
		ask(NOTIFICATION, cpu, setups);
}

static bool at_call(uint64_t *address)
{
	uint8_t code[2];

	if (!bytes)
		bytes = g_byte_array_new();
	g_byte_array_set_size(bytes, 0);
	s390_cpu_gdb_read_register(*current, bytes, PSW_ADDRESS);
	*address = 0;
	for (unsigned int i = 0; i < bytes->length; i++)
		*address = *address << 8 | bytes->data[i];
	return !cpu_memory_rw_debug(*current, *address, code, sizeof(code), false) && (code[0] << 8 | code[1]) == UVC;
}

static uint32_t current_number(void)
{
	uint32_t number = 0;

	while (qemu_get_cpu((int)number) != *current)
		number++;
	return number;
}

static void learn(enum kind kind, const char *file, int line)
{
	uint64_t address;

	if (kind == CALL && !at_call(&address))
		return;
	places[kind].file = file;
	places[kind].line = line;
}

/* This thread's CPU is about to have QEMU's global lock taken. */
static void on_cpu_locks(const char *file, int line)
{
	enum kind kind = expected;
	uint64_t address;

	expected = READY;
	if (kind != READY) {
		learn(kind, file, line);
	} else if (!learned) {
		return; /* translations tell */
	} else if (is(CALL, file, line)) {
		if (at_call(&address))
			ask(CALL, current_number(), address);
	} else if (is(NOTIFICATION, file, line)) {
		if (notifications)
			ask_of_notification(current_number());
	} else if (is(START, file, line)) {
		__atomic_fetch_add(&starts, 1, __ATOMIC_SEQ_CST);
	} else if (is(RESET, file, line)) {
		watch(true);
	}
}

static void on_lock(void *lock, const char *file, int line)
{
	if (!current)
		current = dlsym(NULL, "current_cpu");
	if (current && *current)
		on_cpu_locks(file, line);
	else
		take_orders();
	take_lock(lock, file, line);
}

/* Replaces the function that takes the lock; returns false where QEMU lacks something, or was never looked at. */
static bool watch_lock(const struct qemu_info *info)
{
	lock_function *variable = &bql_mutex_lock_func ? &bql_mutex_lock_func : &qemu_bql_mutex_lock_func;

	if (!variable || !qemu_get_cpu || !s390_cpu_gdb_read_register || !cpu_memory_rw_debug || !g_byte_array_new ||
	    !g_byte_array_set_size || !dlsym(NULL, "current_cpu") || info->version.cur > NEWEST_KNOWN)
		return false;
	take_lock = *variable;
	__atomic_store_n(variable, on_lock, __ATOMIC_SEQ_CST);
	return true;
}

/* Whether the lock will tell of what the CPU is about to execute, or is to be learned from it. */
static bool left_to_lock(enum kind kind)
{
	if (learning)
		expected = kind;
	return learning || learned;
}

static void on_diagnose(unsigned int cpu, void *userdata)
{
	(void)userdata;
	if (!left_to_lock(NOTIFICATION))
		ask_of_notification(cpu);
}

static void on_call(unsigned int cpu, void *address)
{
	if (!left_to_lock(CALL))
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
	if (!left_to_lock(START))
		__atomic_fetch_add(&starts, 1, __ATOMIC_SEQ_CST);
}

static void on_reset(unsigned int cpu, void *userdata)
{
	(void)cpu;
	(void)userdata;
	left_to_lock(RESET);
}

static void on_yield(unsigned int cpu, void *userdata)
{
	(void)cpu;
	(void)userdata;
	left_to_lock(NOTHING);
}

static instruction_callback callback_for(const uint8_t *code)
{
	uint32_t opcode = (uint32_t)code[0] << 8 | code[1], function = (uint32_t)code[2] << 8 | code[3];
	bool devices = notifications || learning;

	if (code[0] == DIAGNOSE && function == DIAGNOSE_NOTIFY)
		return devices ? on_diagnose : NULL;
	if (code[0] == DIAGNOSE && function == DIAGNOSE_RESET)
		return learning ? on_reset : NULL;
	if (code[0] == DIAGNOSE && function == DIAGNOSE_YIELD)
		return learning ? on_yield : NULL;
	if (opcode == START_SUBCHANNEL)
		return devices ? on_start_subchannel : NULL;
	if (opcode == UVC)
		return on_call;
	if (opcode == LPSWE)
		return has_lock() && __atomic_load_n(&booting, __ATOMIC_SEQ_CST) ? on_load : NULL;
	return NULL;
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb)
{
	size_t count = qemu_plugin_tb_n_insns(tb);

	(void)id;
	for (size_t i = 0; i < count; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		void *address = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);
		instruction_callback callback;
		uint8_t copy[8];
		uintptr_t data;

		if (address == (void *)(uintptr_t)entry)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_entry, CALLBACK_WITHOUT_REGISTERS, address);
		if (qemu_plugin_insn_size(insn) != 4)
			continue;
		data = qemu_plugin_insn_data(insn, copy, sizeof(copy));
		callback = callback_for(copied ? copy : (const uint8_t *)data);
		if (callback)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, CALLBACK_WITHOUT_REGISTERS, address);
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

static void *map(int file, uint64_t size)
{
	void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);

	return found == MAP_FAILED ? NULL : found;
}

/* Returns false where they can't be had. */
static bool map_queues(int queues_file, int storage_file)
{
	struct queue_watch *head = map(queues_file, sizeof(*head));

	if (!head || head->size != sizeof(*head))
		return false;
	storage = map(storage_file, head->pages << PAGE_SHIFT);
	queues = map(queues_file, sizeof(*head) + head->pages * (1 + QUEUES));
	return storage && queues;
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv)
{
	int queues_file = -1, storage_file = -1;

	for (int i = 0; i < argc; i++) {
		if (equal(argv[i], "notifications=off"))
			notifications = false;
		else if (number_behind(argv[i], "socket=") >= 0)
			channel = number_behind(argv[i], "socket=");
		else if (number_behind(argv[i], "entry=") >= 0)
			entry = number_behind(argv[i], "entry=");
		else if (number_behind(argv[i], "queues=") >= 0)
			queues_file = number_behind(argv[i], "queues=");
		else if (number_behind(argv[i], "storage=") >= 0)
			storage_file = number_behind(argv[i], "storage=");
		else
			return -1;
	}
	if (channel < 0 || entry < 0 || (queues_file >= 0 && !map_queues(queues_file, storage_file)))
		return -1;
	self = id;
	copied = info->version.cur >= INSN_DATA_IS_COPIED_FROM;
	abilities = (has_lock() ? EXACT : 0) | (watch_lock(info) ? TEACHABLE : 0);
	if (!say_ready(abilities))
		return -1;
	learning = abilities & TEACHABLE;
	watch(true);
	return 0;
}

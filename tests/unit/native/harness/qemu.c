// SPDX-License-Identifier: MIT
/*
 * QEMU, as far as the plugin sees it: what it exports to plugins and modules, and functions by which a test translates and
 * executes instructions, and takes the global lock at one call site or another. NO_LOCK leaves out what builds without
 * loadable modules do not export.
 */

#include <stdlib.h>
#include <string.h>

#include "qemu.h"

enum { CPUS = 4, INSTRUCTIONS = 256, CALLBACKS = 4, SITES = 10 };

struct cpu {
	int interrupts;
	bool stopped;
	uint64_t address;
	uint8_t code[2];
};

struct qemu_plugin_insn {
	uint64_t address;
	uint8_t code[8];
	size_t size;
	struct {
		instruction_callback call;
		void *data;
	} callbacks[CALLBACKS];
	unsigned int count;
};

struct qemu_plugin_tb {
	struct qemu_plugin_insn *insn;
};

static struct cpu cpus[CPUS];
static __thread struct cpu *current_cpu;
static void *on_translation;
static cpu_callback on_idle;
static struct qemu_plugin_insn instructions[INSTRUCTIONS];
static unsigned int translated;
static int version;

int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc, char **argv);

/* --- what plugins call --- */

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void *callback, void *userdata)
{
	if (id != 77 || userdata)
		abort();
	on_translation = callback;
}

void qemu_plugin_register_vcpu_idle_cb(plugin_id id, cpu_callback callback)
{
	if (id != 77)
		abort();
	on_idle = callback;
}

void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, instruction_callback callback, int flags,
					    void *userdata)
{
	if (flags != CALLBACK_WITHOUT_REGISTERS || insn->count == CALLBACKS)
		abort();
	insn->callbacks[insn->count].call = callback;
	insn->callbacks[insn->count++].data = userdata;
}

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb)
{
	return tb->insn ? 1 : 0;
}

struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index)
{
	if (index)
		abort();
	return tb->insn;
}

size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn)
{
	return insn->size;
}

uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn)
{
	return insn->address;
}

uintptr_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *buffer, size_t size)
{
	if (version < INSN_DATA_IS_COPIED_FROM)
		return (uintptr_t)insn->code;
	if (size > insn->size)
		size = insn->size;
	memcpy(buffer, insn->code, size);
	return size;
}

/* --- the global lock --- */

static uint64_t global[16]; /* a mutex */

static void take(void *lock, const char *file, int line)
{
	(void)file;
	(void)line;
	pthread_mutex_lock(lock);
}

#ifdef NO_LOCK
static lock_function taken_by = take;
#else
#define taken_by bql_mutex_lock_func
lock_function bql_mutex_lock_func = take;

void bql_lock_impl(const char *file, int line)
{
	bql_mutex_lock_func(global, file, line);
}

void bql_unlock(void)
{
	pthread_mutex_unlock(global);
}
#endif

/* --- CPUs --- */

struct cpu *qemu_get_cpu(int index)
{
	return index < CPUS ? &cpus[index] : NULL;
}

#ifndef NO_LOCK
bool cpu_is_stopped(struct cpu *cpu)
{
	return cpu->stopped;
}

void cpu_reset_interrupt(struct cpu *cpu, int mask)
{
	cpu->interrupts &= ~mask;
}
#endif

int s390_cpu_gdb_read_register(struct cpu *cpu, struct byte_array *buffer, int number)
{
	if (number != PSW_ADDRESS || buffer->length)
		abort();
	buffer->data = realloc(buffer->data, 8);
	buffer->length = 8;
	for (unsigned int i = 0; i < 8; i++)
		buffer->data[i] = (uint8_t)(cpu->address >> (56 - 8 * i));
	return 8;
}

int cpu_memory_rw_debug(struct cpu *cpu, uint64_t address, void *buffer, size_t length, bool is_write)
{
	if (is_write || address != cpu->address || length > sizeof(cpu->code))
		abort();
	if (address >> 60)
		return -1; /* not mapped */
	memcpy(buffer, cpu->code, length);
	return 0;
}

struct byte_array *g_byte_array_new(void)
{
	return calloc(1, sizeof(struct byte_array));
}

struct byte_array *g_byte_array_set_size(struct byte_array *array, unsigned int length)
{
	array->length = length;
	return array;
}

/* Found here before the C library's: for QEMU, the plugin looks in the program that has loaded it. */
__attribute__((visibility("hidden"))) void *dlsym(void *handle, const char *name)
{
	return !handle && !strcmp(name, "current_cpu") ? &current_cpu : NULL;
}

/* --- what tests call --- */

int test_install(int interface, int argc, char **argv)
{
	struct qemu_info info = {.version.cur = interface};

	version = interface;
	return qemu_plugin_install(77, &info, argc, argv);
}

bool test_is_watching(void)
{
	return on_translation != NULL;
}

/* Returns the instruction's number. */
unsigned int test_translate(uint64_t address, const uint8_t *code, size_t size)
{
	struct qemu_plugin_insn *insn = &instructions[translated];
	struct qemu_plugin_tb tb = {insn};

	memset(insn, 0, sizeof(*insn));
	insn->address = address;
	insn->size = size;
	memcpy(insn->code, code, size);
	if (on_translation && version >= USER_DATA_FROM)
		((void (*)(struct qemu_plugin_tb *, void *))on_translation)(&tb, NULL);
	else if (on_translation)
		((void (*)(plugin_id, struct qemu_plugin_tb *))on_translation)(77, &tb);
	return translated++;
}

void test_execute(unsigned int number, unsigned int cpu)
{
	struct qemu_plugin_insn *insn = &instructions[number];

	current_cpu = &cpus[cpu];
	for (unsigned int i = 0; i < insn->count; i++)
		insn->callbacks[i].call(cpu, insn->callbacks[i].data);
	current_cpu = NULL;
}

/* Returns what is left of the interrupts that wait for `cpu`, which becomes idle. */
int test_become_idle(unsigned int cpu, bool stopped, int interrupts)
{
	cpus[cpu].stopped = stopped;
	cpus[cpu].interrupts = interrupts;
	if (on_idle)
		on_idle(77, cpu);
	return cpus[cpu].interrupts;
}

/* A negative `cpu` is QEMU's main thread. */
void test_lock(unsigned int site, int cpu, uint64_t address, const uint8_t *code)
{
	static const char files[2][8] = {"one.c", "two.c"};

	if (cpu >= 0) {
		cpus[cpu].address = address;
		memcpy(cpus[cpu].code, code, sizeof(cpus[cpu].code));
		current_cpu = &cpus[cpu];
	}
	taken_by(global, files[site / SITES % 2], (int)(site % SITES));
	current_cpu = NULL;
	pthread_mutex_unlock(global);
}

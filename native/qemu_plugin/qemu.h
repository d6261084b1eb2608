// SPDX-License-Identifier: MIT
/*
 * What the plugin uses of QEMU and of the C library that QEMU is linked with, declared as far as it is used: nothing is
 * linked, and no header of either is needed.
 *
 * QEMU's plugin interface differs between its versions (numbers as in QEMU's qemu-plugin.h):
 *
 *     1   QEMU 6.0 to 8.2    qemu_plugin_insn_data returns a pointer to the instruction
 *     2   QEMU 9.0           the same; qemu_plugin_n_vcpus is gone, plugins for version 1 are refused
 *     3   QEMU 9.1           qemu_plugin_insn_data copies the instruction and returns its length
 *     4   QEMU 9.2           qemu_plugin_read_memory_vaddr
 *     5   QEMU 10.1          qemu_plugin_translate_vaddr
 *     6   QEMU 10.2          qemu_plugin_set_pc; plugins for version 5 are taken
 *     7   QEMU 11.1          all callbacks have user data, translation callbacks no plugin_id; others are refused
 *
 * No function of version 7 is new, so nothing that QEMU exports shows it: zseal says so in the environment.
 *
 * What is declared weak belongs to no plugin interface. A QEMU that can load modules of its own exports it;
 * others do not.
 */

#ifndef ZSEAL_QEMU_H
#define ZSEAL_QEMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEAK __attribute__((weak))

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

enum { CALLBACK_WITHOUT_REGISTERS = 0, INSN_DATA_IS_COPIED_FROM = 3, USER_DATA_FROM = 7, NEWEST_KNOWN = 7 };

typedef void (*instruction_callback)(unsigned int cpu, void *userdata);
typedef void (*cpu_callback)(plugin_id id, unsigned int cpu);

void qemu_plugin_register_vcpu_idle_cb(plugin_id id, cpu_callback callback);
/*
 * With the arguments of version 7, the last of which older ones do not look at. The callback takes (plugin_id, tb) up to
 * version 6, and (tb, userdata) since.
 */
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void *callback, void *userdata);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, instruction_callback callback, int flags,
					    void *userdata);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
/* with the arguments of version 3, which older ones do not look at */
uintptr_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *buffer, size_t size);

/* only their presence is asked for */
extern const char qemu_plugin_n_vcpus[] WEAK;
extern const char qemu_plugin_read_memory_vaddr[] WEAK;
extern const char qemu_plugin_translate_vaddr[] WEAK;

/* QEMU's global lock, up to 8.2 and since; the variables hold the function that takes it */
typedef void (*lock_function)(void *lock, const char *file, int line);
void qemu_mutex_lock_iothread_impl(const char *file, int line) WEAK;
void qemu_mutex_unlock_iothread(void) WEAK;
extern lock_function qemu_bql_mutex_lock_func WEAK;
void bql_lock_impl(const char *file, int line) WEAK;
void bql_unlock(void) WEAK;
extern lock_function bql_mutex_lock_func WEAK;

/* QEMU's CPUs; there is also `current_cpu`, a pointer of each thread's own to the CPU that it executes, else NULL */
struct cpu;
struct byte_array {
	uint8_t *data;
	unsigned int length;
};
enum { PSW_ADDRESS = 1 }; /* registers are numbered as for gdb, their values big endian */
struct cpu *qemu_get_cpu(int index) WEAK;
bool cpu_is_stopped(struct cpu *cpu) WEAK;
void cpu_reset_interrupt(struct cpu *cpu, int mask) WEAK;
enum { INTERRUPT_HALT = 0x20 };
int s390_cpu_gdb_read_register(struct cpu *cpu, struct byte_array *buffer, int number) WEAK;
int cpu_memory_rw_debug(struct cpu *cpu, uint64_t address, void *buffer, size_t length, bool is_write) WEAK;
struct byte_array *g_byte_array_new(void) WEAK;
struct byte_array *g_byte_array_set_size(struct byte_array *array, unsigned int length) WEAK;

ptrdiff_t send(int socket, const void *data, size_t size, int flags);
ptrdiff_t recv(int socket, void *data, size_t size, int flags);
int pause(void);
void *mmap(void *address, size_t size, int protection, int flags, int file, long offset);
int madvise(void *address, size_t size, int advice);
int pthread_mutex_lock(void *mutex);
int pthread_mutex_trylock(void *mutex);
int pthread_mutex_unlock(void *mutex);
void *dlsym(void *handle, const char *name);
char *getenv(const char *name);

#define MADV_DONTDUMP 16
#define MAP_FAILED ((void *)-1)
#define MAP_SHARED 1
#define PROT_READ 1
#define PROT_WRITE 2
#define MSG_DONTWAIT 0x40
#define MSG_NOSIGNAL 0x4000

#endif

// SPDX-License-Identifier: MIT
#include "plugin.h"

/* Each thread's own: where QEMU keeps the CPU it executes, and room for a register */
static __thread struct cpu **current;
static __thread struct byte_array *bytes;

bool cpu_is_current(void)
{
	if (!current)
		current = dlsym(NULL, "current_cpu");
	return current && *current;
}

uint32_t cpu_number(void)
{
	uint32_t number = 0;

	while (qemu_get_cpu((int)number) != *current)
		number++;
	return number;
}

bool cpu_is_at_call(uint64_t *address)
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

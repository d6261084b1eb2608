// SPDX-License-Identifier: MIT
/*
 * Answers the ultravisor calls of a guest that Unicorn Engine runs ahead, where Python has said beforehand what the
 * answer is: a guest shares its bounce buffers with thousands of calls that differ in one page number, and a callback
 * into Python costs ten times as much as everything else between two of them.
 *
 * `zseal_interrupted` is a hook for UC_HOOK_INTR. It knows no rule: whatever is not exactly a call of the series it was
 * given goes to `otherwise`. The layout of `struct series` is also that of the class Series in
 * src/zseal/engine/unicorn/series.py. Nothing is linked, the functions of Unicorn come as pointers.
 */

#include <stdint.h>

enum { PAGE_SHIFT = 12, PSW_MASK = 16, PSW_ADDRESS = 17, REGISTERS = 18, UVC_LENGTH = 4 };

typedef int (*batch)(void *uc, const int *names, void *const *values, int count);

struct series {
	batch read;
	batch write;
	void (*otherwise)(void *uc, uint32_t number, void *data);
	const int *names;      /* of the 16 general registers, the PSW's mask and its address */
	void *const *values;   /* where `read` and `write` have them: in `registers` */
	uint64_t *registers;
	uint8_t *block;        /* the control block in guest storage, NULL if there is no series */
	const uint8_t *wanted; /* what is in each call's block ... */
	const uint8_t *mask;   /* ... in the bits that are one here */
	const uint8_t *answer; /* what is stored in it, from `answer_offset` on */
	uint8_t *ready;        /* one byte a page: whether a call for it is answered so */
	uint32_t *pages;       /* the pages that were answered for, in their order */
	uint64_t instruction;  /* logical address of the UVC */
	uint64_t address;      /* logical address of the control block */
	uint64_t condition;    /* the bits of the condition code in the PSW's mask */
	uint64_t code;         /* their value as the calls set it */
	uint64_t ready_count;
	uint32_t operand;      /* number of the register with the control block's address */
	uint32_t size;         /* of the control block */
	uint32_t field;        /* where in it the page's address is, 8 bytes, big endian */
	uint32_t answer_offset;
	uint32_t answer_size;
	uint32_t count;        /* of `pages` */
	uint32_t limit;
};

/* Returns the page that the call at the PSW is for; `ready_count` if it is not a call of the series. */
static uint64_t page_of_call(const struct series *series)
{
	const uint64_t *registers = series->registers;
	uint64_t address = 0;

	if (registers[PSW_ADDRESS] != series->instruction || registers[series->operand] != series->address)
		return series->ready_count;
	for (uint32_t i = 0; i < series->size; i++)
		if ((series->block[i] ^ series->wanted[i]) & series->mask[i])
			return series->ready_count;
	for (uint32_t i = 0; i < 8; i++)
		address = address << 8 | series->block[series->field + i];
	if (address & ((1u << PAGE_SHIFT) - 1))
		return series->ready_count;
	return address >> PAGE_SHIFT;
}

__attribute__((visibility("default"))) void zseal_interrupted(void *uc, uint32_t number, void *data)
{
	struct series *series = data;
	uint64_t *registers = series->registers;
	uint64_t page;

	if (!series->block || series->count == series->limit) {
		series->otherwise(uc, number, data);
		return;
	}
	series->read(uc, series->names, series->values, REGISTERS);
	page = page_of_call(series);
	if (page >= series->ready_count || !series->ready[page]) {
		series->otherwise(uc, number, data);
		return;
	}
	series->ready[page] = 0;
	series->pages[series->count++] = (uint32_t)page;
	for (uint32_t i = 0; i < series->answer_size; i++)
		series->block[series->answer_offset + i] = series->answer[i];
	registers[PSW_MASK] = (registers[PSW_MASK] & ~series->condition) | series->code;
	registers[PSW_ADDRESS] += UVC_LENGTH;
	series->write(uc, series->names + PSW_MASK, series->values + PSW_MASK, 2);
}

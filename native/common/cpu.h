/* SPDX-License-Identifier: MIT */
/* z/Architecture instructions and assigned storage locations that C has no words for. */
#ifndef CPU_H
#define CPU_H

#define PAGE_SIZE 4096

/* PSW mask bits (bit 0 is the most significant) */
#define PSW_DAT 0x0400000000000000     /* bit 5 */
#define PSW_EXTERNAL 0x0100000000000000 /* bit 7 */
#define PSW_WAIT 0x0002000000000000    /* bit 14 */
#define PSW_PROBLEM 0x0001000000000000 /* bit 15 */
#define PSW_HOME 0x0000c00000000000    /* bits 16-17 */
#define PSW_BA 0x0000000080000000      /* bit 32 */
#define PSW_64BIT 0x0000000180000000   /* bits 31 and 32 */

/* assigned storage locations in the lowcore (real addresses) */
#define LC_EXTERNAL_PARAMETER 0x80
#define LC_EXTERNAL_CODE 0x86
#define LC_PROGRAM_CODE 0x8e
#define LC_STFL 0xc8
#define LC_PROGRAM_OLD_PSW 0x150
#define LC_RESTART_NEW_PSW 0x1a0
#define LC_EXTERNAL_NEW_PSW 0x1b0
#define LC_SVC_NEW_PSW 0x1c0
#define LC_PROGRAM_NEW_PSW 0x1d0

/* external-interruption subclasses: bits of control register 0 */
#define SUBCLASS_CLOCK_COMPARATOR 0x0800
#define SUBCLASS_SERVICE_SIGNAL 0x0200

#ifndef __ASSEMBLER__

#include <stddef.h>
#include <stdint.h>

struct psw {
    uint64_t mask;
    uint64_t address;
};

/* A location at a fixed real address. The empty asm keeps the compiler from reasoning about pointers near 0. */
static inline void *real(uint64_t address)
{
    void *pointer = (void *)address;

    asm("" : "+r"(pointer));
    return pointer;
}

static inline uint64_t load64(uint64_t address)
{
    return *(volatile uint64_t *)real(address);
}

static inline void store64(uint64_t address, uint64_t value)
{
    *(volatile uint64_t *)real(address) = value;
}

static inline void set_new_psw(uint64_t location, uint64_t mask, const void *address)
{
    store64(location, mask);
    store64(location + 8, (uint64_t)address);
}

static inline __attribute__((noreturn)) void load_psw(uint64_t mask, uint64_t address)
{
    struct psw psw __attribute__((aligned(8))) = {mask, address};

    asm volatile("lpswe %0" : : "Q"(psw) : "memory");
    __builtin_unreachable();
}

/* Stop for good: the operator (or the hypervisor's log) sees `code` as the address of a disabled-wait PSW. */
static inline __attribute__((noreturn)) void disabled_wait(uint64_t code)
{
    load_psw(PSW_WAIT | PSW_BA, code);
}

/* DIAGNOSE X'308': `address` in the even register of the pair, the response comes back in the odd one. */
static inline uint64_t diag308(uint64_t subcode, uint64_t address)
{
    register uint64_t pair_even asm("2") = address;
    register uint64_t pair_odd asm("3") = 0;

    asm volatile("diag %0,%2,0x308" : "+d"(pair_even), "+d"(pair_odd) : "d"(subcode) : "cc", "memory");
    return pair_odd;
}

/* Store up to `count` doublewords of the facility list; facilities the machine has no room for read as zero. */
static inline void store_facilities(uint64_t *list, unsigned int count)
{
    for (unsigned int i = 0; i < count; i++)
        list[i] = 0;
    asm volatile(".insn s,0xb2b10000,0" : : : "memory"); /* STFL: the first 32 bits, to the lowcore */
    uint32_t first = *(volatile uint32_t *)real(LC_STFL);

    list[0] = (uint64_t)first << 32;
    if (!(first & 0x01000000)) /* bit 7: STORE FACILITY LIST EXTENDED is installed */
        return;
    register uint64_t last asm("0") = count - 1;

    asm volatile(".insn s,0xb2b00000,0(%1)" : "+d"(last) : "a"(list) : "cc", "memory");
}

/* Sleep, open for nothing but external interruptions of `subclass`, until one has come (wait.S). */
void wait_external(uint64_t subclass);

static inline int has_facility(const uint64_t *list, unsigned int bit)
{
    return list[bit / 64] >> (63 - bit % 64) & 1;
}

#endif /* __ASSEMBLER__ */
#endif

/* SPDX-License-Identifier: MIT */
/*
 * Dynamic address translation: storage mapped one to one, as far as the tables' room reaches, and the first MiB of the pool a
 * second time at ALIAS, without its last page. Everything else is invalid.
 */
#include "console.h"
#include "guest.h"
#include "memory.h"

#define SEGMENT 0x100000ul
#define SEGMENT_TABLE_SIZE 0x4000 /* 2048 entries: 2 GiB */
#define PAGE_TABLE_SIZE 0x800     /* 256 entries */
#define PAGES 256
#define SEGMENT_INVALID 0x20
#define PAGE_INVALID 0x400
#define TABLE_LENGTH 3 /* of the segment table, in 4 KiB units less 1; the designation type is 0 */
#define ALIAS 0x40000000ul

static void map_segment(uint64_t virtual, uint64_t absolute, uint64_t page_table)
{
    store64(storage.tables + virtual / SEGMENT * 8, page_table);
    for (unsigned int page = 0; page < PAGES; page++)
        store64(page_table + page * 8, absolute + page * PAGE_SIZE);
}

static uint64_t build_tables(void)
{
    uint64_t page_table = storage.tables + SEGMENT_TABLE_SIZE;

    for (unsigned int entry = 0; entry < SEGMENT_TABLE_SIZE / 8; entry++)
        store64(storage.tables + entry * 8, SEGMENT_INVALID);
    map_segment(ALIAS, storage.pool, page_table);
    store64(page_table + (PAGES - 1) * 8, PAGE_INVALID);
    for (uint64_t address = 0; address < storage.end; address += SEGMENT) {
        page_table += PAGE_TABLE_SIZE;
        if (page_table + PAGE_TABLE_SIZE > storage.pool)
            break;
        map_segment(address, address, page_table);
    }
    return storage.tables | TABLE_LENGTH;
}

static void switch_mask(uint64_t mask)
{
    struct psw psw __attribute__((aligned(8)));
    uint64_t scratch;

    psw.mask = mask;
    asm volatile("larl %0,1f\n"
                 "stg %0,8(%1)\n"
                 "lpswe 0(%1)\n"
                 "1:"
                 : "=&a"(scratch)
                 : "a"(&psw)
                 : "cc", "memory");
}

/* dat=primary|home|off */
void word_dat(const char *value)
{
    uint64_t asce;

    switch_mask(PSW_64BIT); /* tables in use must not be rebuilt */
    if (begins_with(value, "off")) {
        say("dat off");
        return;
    }
    asce = build_tables();
    asm volatile("lctlg %%c1,%%c1,%0\n"
                 "lctlg %%c13,%%c13,%0\n"
                 "ptlb"
                 :
                 : "Q"(asce)
                 : "memory");
    switch_mask(PSW_64BIT | PSW_DAT | (begins_with(value, "home") ? PSW_HOME : 0));
    say(begins_with(value, "home") ? "dat home" : "dat primary");
}

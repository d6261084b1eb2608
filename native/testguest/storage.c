/* SPDX-License-Identifier: MIT */
/* The words that look at and change storage. */
#include "console.h"
#include "guest.h"
#include "layout.h"
#include "memory.h"
#include "sclp.h"

#define MIB 0x100000ul
#define DUMP_LINE 32
#define AWAIT_SECONDS 60

struct storage storage;
extern uint64_t image_end[]; /* not char: LARL needs an even address */

/* READ SCP INFO: how many storage increments there are, and their size in MiB. Newer fields count where the old ones are 0. */
static uint64_t storage_size(void)
{
    uint8_t *sccb = sclp_sccb(PAGE_SIZE);
    uint64_t count, size;

    if (sclp_call(SCLP_READ_SCP_INFO, sccb) != SCLP_READ_OK)
        return 0;
    count = *(uint16_t *)(sccb + 8);
    if (!count)
        count = *(uint64_t *)(sccb + 104);
    size = sccb[10];
    if (!size)
        size = *(uint32_t *)(sccb + 100);
    return count * size * MIB;
}

void storage_find(void)
{
    uint64_t used = (uint64_t)image_end;

    storage.ramdisk = load64(KERNEL_RAMDISK_START);
    storage.ramdisk_size = load64(KERNEL_RAMDISK_SIZE);
    if (storage.ramdisk + storage.ramdisk_size > used)
        used = storage.ramdisk + storage.ramdisk_size;
    used = (used + MIB - 1) & -MIB;
    storage.end = storage_size();
    storage.marker = used;
    storage.block = used + PAGE_SIZE;
    storage.uvcb = used + 2 * PAGE_SIZE;
    storage.tables = used + 4 * PAGE_SIZE;
    storage.pool = used + MIB;
}

static uint32_t crc32(const volatile uint8_t *bytes, uint64_t size)
{
    static uint32_t table[16]; /* by nibble, for the reflected polynomial of IEEE 802.3 */
    uint32_t crc = ~0u;

    if (!table[1])
        for (uint32_t i = 0; i < 16; i++) {
            table[i] = i;
            for (unsigned int bit = 0; bit < 4; bit++)
                table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320 : 0);
        }
    for (uint64_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static void word_storage(const char *value)
{
    struct text text = line_start("storage");

    (void)value;
    put_hex(&text, " end=0x", storage.end, 1);
    put_hex(&text, " marker=0x", storage.marker, 1);
    put_hex(&text, " block=0x", storage.block, 1);
    put_hex(&text, " uvcb=0x", storage.uvcb, 1);
    put_hex(&text, " pool=0x", storage.pool, 1);
    console_write(&text);
}

static void put_crc(struct text *text, uint64_t address, uint64_t size)
{
    put_hex(text, " address=0x", address, 1);
    put_decimal(text, " size=", size);
    put_hex(text, " crc32=", crc32(real(address), size), 8);
    console_write(text);
}

static void word_ramdisk(const char *value)
{
    struct text text = line_start("ramdisk");

    (void)value;
    put_crc(&text, storage.ramdisk, storage.ramdisk_size);
}

static void word_cmdline(const char *value)
{
    const char *words = real(KERNEL_COMMAND_LINE);
    struct text text = line_start("cmdline");
    unsigned int length = 0;

    (void)value;
    while (length < GUEST_COMMAND_LINE_CAPACITY && words[length])
        length++;
    put_decimal(&text, " length=", length);
    put_hex(&text, " crc32=", crc32((const uint8_t *)words, length), 8);
    text_string(&text, " ");
    put_bytes(&text, words, length);
    console_write(&text);
}

static void word_crc(const char *value)
{
    struct text text = line_start("crc");
    uint64_t address = parse_address(&value);

    parse_comma(&value);
    put_crc(&text, address, parse_hex(&value));
}

static unsigned int copy_string(uint64_t address, const char *string)
{
    unsigned int length = 0;

    for (; string[length]; length++)
        ((volatile char *)real(address))[length] = string[length];
    return length;
}

static int holds_string(uint64_t address, const char *string)
{
    for (unsigned int i = 0; string[i]; i++)
        if (((volatile char *)real(address))[i] != string[i])
            return 0;
    return 1;
}

/* The text itself is not printed: it must not get anywhere else. */
static void word_marker(const char *value)
{
    struct text text = line_start("marker");

    put_hex(&text, " address=0x", storage.marker, 1);
    put_decimal(&text, " length=", copy_string(storage.marker, value));
    console_write(&text);
}

static void word_holds(const char *value)
{
    struct text text = line_start("holds");
    uint64_t address = parse_address(&value);

    parse_comma(&value);
    put_hex(&text, " address=0x", address, 1);
    text_string(&text, holds_string(address, value) ? " yes" : " no");
    console_write(&text);
}

static void word_store(const char *value)
{
    struct text text = line_start("store");
    uint64_t address = parse_address(&value);

    parse_comma(&value);
    put_hex(&text, " address=0x", address, 1);
    put_decimal(&text, " length=", copy_string(address, value));
    console_write(&text);
}

static void word_load(const char *value)
{
    uint64_t address = parse_address(&value);
    uint64_t size;

    parse_comma(&value);
    for (size = parse_hex(&value); size;) {
        struct text text = line_start("load");
        uint64_t part = size < DUMP_LINE ? size : DUMP_LINE;

        put_hex(&text, " 0x", address, 1);
        text_string(&text, " ");
        for (uint64_t i = 0; i < part; i++)
            text_hex(&text, *(volatile uint8_t *)real(address + i), 2);
        console_write(&text);
        address += part;
        size -= part;
    }
}

static void word_zero(const char *value)
{
    struct text text = line_start("zero");
    uint64_t address = parse_address(&value);
    uint64_t size;
    int zero = 1;

    parse_comma(&value);
    size = parse_hex(&value);
    put_hex(&text, " address=0x", address, 1);
    put_hex(&text, " size=0x", size, 1);
    for (; size && zero; size--)
        zero = *(volatile uint8_t *)real(address++) == 0;
    text_string(&text, zero ? " yes" : " no");
    console_write(&text);
}

static void word_await(const char *value)
{
    uint64_t address = parse_address(&value);
    uint64_t limit = milliseconds() + AWAIT_SECONDS * 1000;

    parse_comma(&value);
    while (!holds_string(address, value)) {
        if (milliseconds() > limit) {
            say("await timed out");
            return;
        }
        nap(1);
    }
    say("await done");
}

const struct word storage_words[] = {
    {"storage", word_storage}, {"ramdisk", word_ramdisk}, {"cmdline", word_cmdline}, {"crc", word_crc},
    {"marker", word_marker},   {"holds", word_holds},     {"store", word_store},     {"load", word_load},
    {"zero", word_zero},       {"await", word_await},     {"", NULL},
};

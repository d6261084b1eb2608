/* SPDX-License-Identifier: MIT */
#include "guest.h"

int begins_with(const char *string, const char *start)
{
    while (*start)
        if (*string++ != *start++)
            return 0;
    return 1;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

uint64_t parse_hex(const char **cursor)
{
    uint64_t value = 0;

    if (begins_with(*cursor, "0x"))
        *cursor += 2;
    while (hex_digit(**cursor) >= 0)
        value = value << 4 | (uint64_t)hex_digit(*(*cursor)++);
    return value;
}

uint64_t parse_decimal(const char **cursor)
{
    uint64_t value = 0;

    while (**cursor >= '0' && **cursor <= '9')
        value = value * 10 + (uint64_t)(*(*cursor)++ - '0');
    return value;
}

uint64_t parse_address(const char **cursor)
{
    static const struct {
        char name[8];
        const uint64_t *value;
    } places[] = {
        {"pool", &storage.pool},   {"ramdisk", &storage.ramdisk}, {"marker", &storage.marker},
        {"block", &storage.block}, {"uvcb", &storage.uvcb},       {"end", &storage.end},
    };
    uint64_t base = 0;

    for (unsigned int i = 0; i < sizeof(places) / sizeof(*places); i++)
        if (begins_with(*cursor, places[i].name)) {
            while (**cursor >= 'a' && **cursor <= 'z')
                (*cursor)++;
            base = *places[i].value;
            break;
        }
    if (**cursor == '-') {
        (*cursor)++;
        return base - parse_hex(cursor);
    }
    if (**cursor == '+')
        (*cursor)++;
    return base + parse_hex(cursor);
}

int parse_comma(const char **cursor)
{
    if (**cursor != ',')
        return 0;
    (*cursor)++;
    return 1;
}

/* SPDX-License-Identifier: MIT */
#include "console.h"
#include "guest.h"

struct text line_start(const char *string)
{
    struct text text = {0};

    text_string(&text, "zseal-test-guest: ");
    text_string(&text, string);
    return text;
}

void say(const char *string)
{
    struct text text = line_start(string);

    console_write(&text);
}

void put_hex(struct text *text, const char *label, uint64_t value, unsigned int digits)
{
    text_string(text, label);
    text_hex(text, value, digits);
}

void put_decimal(struct text *text, const char *label, uint64_t value)
{
    text_string(text, label);
    text_decimal(text, value);
}

void put_bytes(struct text *text, const char *bytes, uint64_t size)
{
    for (uint64_t i = 0; i < size; i++) {
        char character[2] = {bytes[i] < ' ' || bytes[i] > '~' ? '.' : bytes[i], '\0'};

        text_string(text, character);
    }
}

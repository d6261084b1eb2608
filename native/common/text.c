/* SPDX-License-Identifier: MIT */
#include "text.h"

static void text_char(struct text *text, char c)
{
    if (text->length < sizeof(text->bytes))
        text->bytes[text->length++] = c;
}

void text_string(struct text *text, const char *string)
{
    while (*string)
        text_char(text, *string++);
}

void text_hex(struct text *text, uint64_t value, unsigned int digits)
{
    for (int shift = 60; shift >= 0; shift -= 4)
        if (value >> shift || shift < 4 * (int)digits || shift == 0)
            text_char(text, "0123456789abcdef"[value >> shift & 15]);
}

void text_decimal(struct text *text, uint64_t value)
{
    char digits[20];
    unsigned int count = 0;

    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        text_char(text, digits[--count]);
}

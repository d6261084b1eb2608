/* SPDX-License-Identifier: MIT */
/* One line of text under construction. What does not fit is dropped. */
#ifndef TEXT_H
#define TEXT_H

#include <stdint.h>

#ifndef TEXT_SIZE
#define TEXT_SIZE 80 /* what a line of the operator's console shows */
#endif

struct text {
    unsigned int length;
    char bytes[TEXT_SIZE];
};

void text_string(struct text *text, const char *string);
void text_hex(struct text *text, uint64_t value, unsigned int digits); /* at least `digits` digits, no prefix */
void text_decimal(struct text *text, uint64_t value);

#endif

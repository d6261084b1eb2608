/* SPDX-License-Identifier: MIT */
#include "memory.h"

#define BLOCK 256 /* the most one MVC moves */

void copy_ascending(void *destination, const void *source, size_t size)
{
    char *to = destination;
    const char *from = source;

    for (; size >= BLOCK; size -= BLOCK, to += BLOCK, from += BLOCK) /* MVC is defined to work byte by byte, left to right */
        asm volatile("mvc 0(256,%0),0(%1)" : : "a"(to), "a"(from) : "memory");
    for (; size; size--) {
        *to++ = *from++;
        asm volatile("" : : : "memory"); /* not to be recognised as memcpy */
    }
}

void *memcpy(void *destination, const void *source, size_t size)
{
    copy_ascending(destination, source, size);
    return destination;
}

void *memset(void *destination, int value, size_t size)
{
    char *to = destination;

    for (; size; size--) {
        *to++ = (char)value;
        asm volatile("" : : : "memory");
    }
    return destination;
}

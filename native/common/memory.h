/* SPDX-License-Identifier: MIT */
#ifndef MEMORY_H
#define MEMORY_H

#include <stddef.h>

/* The compiler may call these two by itself. */
void *memset(void *destination, int value, size_t size);
void *memcpy(void *destination, const void *source, size_t size);

/* Copy from the lowest address up: right for overlapping areas whose destination is the lower one. */
void copy_ascending(void *destination, const void *source, size_t size);

#endif

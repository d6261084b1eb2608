// SPDX-License-Identifier: MIT
/* What the guest code that does not need an s390x CPU calls: a console, and the test guest's places. */

#include <string.h>

#include "console.h"
#include "guest.h"

struct storage storage = {
	.end = 0x8000000,
	.ramdisk = 0x2000000,
	.marker = 0x300000,
	.block = 0x301000,
	.uvcb = 0x302000,
	.pool = 0x400000,
};

void (*on_line)(const char *bytes, unsigned int length);

void console_open(void)
{
}

void console_write(const struct text *text)
{
	on_line(text->bytes, text->length);
}

void console_line(const char *line)
{
	on_line(line, (unsigned int)strlen(line));
}

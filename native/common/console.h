/* SPDX-License-Identifier: MIT */
#ifndef CONSOLE_H
#define CONSOLE_H

#include "text.h"

void console_open(void); /* announce the events we send; a subsystem reset makes the machine forget it */
void console_write(const struct text *text);
void console_line(const char *line);

#endif

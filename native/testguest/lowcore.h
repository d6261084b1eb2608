/* SPDX-License-Identifier: MIT */
/* The guest's own fixed places: a few words of each CPU's lowcore, and pages below the kernel. */
#ifndef LOWCORE_H
#define LOWCORE_H

#define LC_RESUME 0x400     /* where a program check goes on; 0: nothing of the kind is expected */
#define LC_TRIED_CODE 0x408 /* program-interruption code of the instruction tried last, 0 if it was executed */
#define LC_REGISTERS 0x410
#define LC_RESUME_PSW 0x420

#define SECOND_PREFIX 0x6000    /* the second CPU's lowcore, 8 KiB */
#define SECOND_STACK_TOP 0x9000

#define GUEST_COMMAND_LINE_CAPACITY 4096

#endif

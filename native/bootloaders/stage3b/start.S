/* SPDX-License-Identifier: MIT */
#include "start.h"

/*
 * The start PSW of the SE header names the first byte of this file, wherever its component lies. All code addresses are
 * relative; only the stack, the lowcore and the SCCB have fixed places, below 0x10000.
 */
        .section .start, "ax", @progbits
        .globl  _start
_start:
        set_stack
        on_program_check program_check
        larl    %r2,_start
        larl    %r3,image_end
        brasl   %r14,stage3b

program_check:                          /* stop with the failing address as code */
        llihh   %r1,PSW_WAIT >> 48
        oihl    %r1,PSW_64BIT >> 32
        oilh    %r1,(PSW_64BIT >> 16) & 0xffff
        stg     %r1,LC_PROGRAM_OLD_PSW
        lpswe   LC_PROGRAM_OLD_PSW

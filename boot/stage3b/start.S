/* SPDX-License-Identifier: MIT */
#include "cpu.h"
#include "layout.h"

/*
 * The start PSW of the SE header names the first byte of this file, wherever its component lies. All code addresses are
 * relative; only the stack, the lowcore and the SCCB have fixed places, below 0x10000.
 */
        .section .start, "ax", @progbits
        .globl  _start
_start:
        llilh   %r15,STACK_TOP >> 16
        aghi    %r15,-STACK_FRAME
        larl    %r1,program_check
        stg     %r1,LC_PROGRAM_NEW_PSW+8
        larl    %r1,plain_mask
        mvc     LC_PROGRAM_NEW_PSW(8),0(%r1)
        larl    %r2,_start
        larl    %r3,image_end
        brasl   %r14,stage3b

        .balign 8
plain_mask:
        .quad   PSW_64BIT

program_check:
        lg      %r3,LC_PROGRAM_OLD_PSW+8
        larl    %r1,stop_mask
        stg     %r3,LC_PROGRAM_NEW_PSW+8
        mvc     LC_PROGRAM_NEW_PSW(8),0(%r1)
        lpswe   LC_PROGRAM_NEW_PSW      /* stop with the failing address as code */

        .balign 8
stop_mask:
        .quad   PSW_WAIT + PSW_64BIT

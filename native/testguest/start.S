/* SPDX-License-Identifier: MIT */
#include "start.h"
#include "lowcore.h"

/* The first bytes look like a Linux kernel's: entry, S390EP, the parameter area, the command line. */
        .section .start, "ax", @progbits
        .globl  _start
_start:
        j       main_entry
        .org    0x8
        .ascii  "S390EP"
        .byte   0, 1
        .org    KERNEL_COMMAND_LINE_CAPACITY - KERNEL_START
        .quad   GUEST_COMMAND_LINE_CAPACITY
        .org    KERNEL_COMMAND_LINE - KERNEL_START
        .skip   GUEST_COMMAND_LINE_CAPACITY

main_entry:
        enter_z_architecture
        set_stack
        on_program_check program_check
        brasl   %r14,main

/*
 * A program check comes back after the instruction that was tried, if LC_RESUME says so, with all registers kept and
 * its code in LC_TRIED_CODE. Problem state ends with it. Any other program check is reported and stops the guest.
 */
        .text
program_check:
        stmg    %r0,%r1,LC_REGISTERS
        llgh    %r0,LC_PROGRAM_CODE
        stg     %r0,LC_TRIED_CODE
        lg      %r1,LC_RESUME
        ltgr    %r1,%r1
        jz      1f
        lg      %r0,LC_PROGRAM_OLD_PSW
        nihh    %r0,(~(PSW_PROBLEM >> 48)) & 0xffff
        stg     %r0,LC_RESUME_PSW       /* not the old PSW: low-address protection may be on */
        stg     %r1,LC_RESUME_PSW+8
        lmg     %r0,%r1,LC_REGISTERS
        lpswe   LC_RESUME_PSW
1:
        brasl   %r14,unexpected_program_check

/*
 * int diag308_try(uint64_t subcode, uint64_t address, uint64_t *response)
 *
 * Returns 0 after the instruction (check LC_TRIED_CODE), or 1 when the CPU came back through the PSW at absolute address
 * 0, as the resets of subcodes 0 and 1 make it. Registers are lost there, storage is not.
 */
        .globl  diag308_try
        .hidden diag308_try
diag308_try:
        stmg    %r6,%r15,48(%r15)
        larl    %r1,saved_stack
        stg     %r15,0(%r1)
        larl    %r1,came_back
        oihh    %r1,0x0008              /* short format */
        oihl    %r1,PSW_64BIT >> 32
        oilh    %r1,(PSW_64BIT >> 16) & 0xffff
        stg     %r1,0
        lgr     %r5,%r2
        lgr     %r0,%r3
        lghi    %r1,0
        lghi    %r2,0
        stg     %r2,LC_TRIED_CODE
        larl    %r2,1f
        stg     %r2,LC_RESUME
        diag    %r0,%r5,0x308
1:
        stg     %r1,0(%r4)
        lghi    %r2,0
2:
        lghi    %r1,0
        stg     %r1,LC_RESUME
        br      %r14
came_back:
        larl    %r1,saved_stack
        lg      %r15,0(%r1)
        lmg     %r6,%r15,48(%r15)
        lghi    %r2,1
        j       2b

/* Where the second CPU starts; its stack is the page that ends at SECOND_STACK_TOP. */
        .globl  second_entry
        .hidden second_entry
second_entry:
        sam64
        lghi    %r15,0
        llill   %r15,SECOND_STACK_TOP
        aghi    %r15,-STACK_FRAME
        on_program_check program_check
        brasl   %r14,second_main

        .bss
        .balign 8
saved_stack:
        .quad   0

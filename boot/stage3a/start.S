/* SPDX-License-Identifier: MIT */
#include "cpu.h"
#include "layout.h"

/*
 * Two ways in: a loader for Linux kernels starts the first byte (0x10000); the short PSW of the image file names the byte
 * 0x1000 further on. What lies between is left alone: loaders write the IPL device, ramdisk and command line of the kernel
 * they believe this is to 0x10400-0x107ff, and no S390EP at 0x10008 invites them to.
 */
        .section .start, "ax", @progbits
        .globl  _start
_start:
        j       main_entry

        .org    0x1000
main_entry:
        basr    %r13,0
base:
        ssm     no_interruptions-base(%r13)
        slr     %r2,%r2                 /* SIGP set architecture: status, */
        lhi     %r3,1                   /* z/Architecture */
        slr     %r4,%r4                 /* (the CPU address does not matter) */
        sigp    %r2,%r4,0x12            /* refused where the machine is there already */
        sam64
        lghi    %r15,0                  /* no stale high halves of registers beyond this point */
        llilh   %r15,STACK_TOP >> 16
        aghi    %r15,-STACK_FRAME
        larl    %r1,program_check
        stg     %r1,LC_PROGRAM_NEW_PSW+8
        larl    %r1,plain_mask
        mvc     LC_PROGRAM_NEW_PSW(8),0(%r1)
        brasl   %r14,stage3a

no_interruptions:
        .byte   0

        .balign 8
plain_mask:
        .quad   PSW_64BIT

program_check:
        llilh   %r15,STACK_TOP >> 16
        aghi    %r15,-STACK_FRAME
        brasl   %r14,report_program_check

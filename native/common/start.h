/* SPDX-License-Identifier: MIT */
/* What every program does first, whatever started it: assembler macros. */
#ifndef START_H
#define START_H

#include "cpu.h"
#include "layout.h"

        /*
         * From any architectural mode into z/Architecture with 64-bit addressing, interruptions and DAT off. Only
         * instructions of ESA/390 before SAM64. Destroys registers 2, 3, 4 and 13.
         */
        .macro  enter_z_architecture
        basr    %r13,0
.Lhere\@:
        ssm     .Lnone\@-.Lhere\@(%r13)
        slr     %r2,%r2                 /* SIGP set architecture: status, */
        lhi     %r3,1                   /* z/Architecture; */
        slr     %r4,%r4                 /* the CPU address does not matter; */
        sigp    %r2,%r4,0x12            /* refused where the machine is there already */
        sam64
        j       .Ldone\@
.Lnone\@:
        .byte   0
        .balign 2
.Ldone\@:
        .endm

        .macro  set_stack
        lghi    %r15,0                  /* no stale high half */
        llilh   %r15,STACK_TOP >> 16
        aghi    %r15,-STACK_FRAME
        .endm

        /* Let program checks start `handler`. Destroys register 1. */
        .macro  on_program_check handler
        larl    %r1,\handler
        stg     %r1,LC_PROGRAM_NEW_PSW+8
        llihl   %r1,PSW_64BIT >> 32
        oilh    %r1,(PSW_64BIT >> 16) & 0xffff
        stg     %r1,LC_PROGRAM_NEW_PSW
        .endm

#endif

/* SPDX-License-Identifier: MIT */
#include "start.h"

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
        enter_z_architecture
        set_stack
        on_program_check program_check
        brasl   %r14,stage3a

program_check:
        set_stack
        brasl   %r14,report_program_check

/* SPDX-License-Identifier: MIT */
/* Where things live below the kernel's place. All of it is free while a bootloader runs. */
#ifndef LAYOUT_H
#define LAYOUT_H

#define SCCB_ADDRESS 0x2000   /* one page */
#define STACK_TOP 0x10000     /* the stack has the page below */
#define STACK_FRAME 160       /* register save area that every s390x function expects above its stack pointer */

/* Linux/s390 parameter area, absolute addresses */
#define KERNEL_START 0x10000
#define KERNEL_RAMDISK_START 0x10408
#define KERNEL_RAMDISK_SIZE 0x10410
#define KERNEL_COMMAND_LINE_CAPACITY 0x10430 /* 0 stands for the legacy 896 bytes */
#define KERNEL_COMMAND_LINE 0x10480
#define LEGACY_COMMAND_LINE_CAPACITY 896

/* addresses in the disabled-wait PSW */
#define STOP_INTERNAL_ERROR 0x4511
#define STOP_NO_SECURE_EXECUTION 0x4607
#define STOP_PROTECTED_BOOT_FAILED 0x4608

#endif

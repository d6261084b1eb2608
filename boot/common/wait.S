/* SPDX-License-Identifier: MIT */
#include "cpu.h"

#define SUBCLASSES 0xfff0        /* all external-interruption subclasses of control register 0 */
#define SERVICE_SIGNAL 0x0200

/*
 * void wait_service_signal(void)
 *
 * Opens the CPU for the service signal alone and sleeps until it comes. A signal that is pending already ends the wait at
 * once, so nothing is lost between a service call and this wait. Control register 0 is left as it was.
 */
        .text
        .globl  wait_service_signal
        .hidden wait_service_signal
        .type   wait_service_signal, @function
wait_service_signal:
        aghi    %r15,-32
        stctg   %c0,%c0,160(%r15)
        lg      %r1,160(%r15)
        nill    %r1,(~SUBCLASSES) & 0xffff
        oill    %r1,SERVICE_SIGNAL
        stg     %r1,168(%r15)
        lctlg   %c0,%c0,168(%r15)
        larl    %r1,woken
        stg     %r1,LC_EXTERNAL_NEW_PSW+8
        larl    %r1,open_wait
        lg      %r0,8(%r1)              /* PSW_64BIT */
        stg     %r0,LC_EXTERNAL_NEW_PSW
        lg      %r0,0(%r1)
        stg     %r0,168(%r15)
        larl    %r1,woken               /* an enabled wait never goes on by itself; the address only has to be valid */
        stg     %r1,176(%r15)
        lpswe   168(%r15)
woken:
        lctlg   %c0,%c0,160(%r15)
        aghi    %r15,32
        br      %r14
        .size   wait_service_signal, .-wait_service_signal

        .section .rodata.wait, "a", @progbits
        .balign 8
open_wait:
        .quad   PSW_EXTERNAL + PSW_WAIT + PSW_64BIT
        .quad   PSW_64BIT

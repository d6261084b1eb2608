/* SPDX-License-Identifier: MIT */
#include "cpu.h"

#define SUBCLASSES 0xfff0        /* all external-interruption subclasses of control register 0 */

/*
 * void wait_external(uint64_t subclass)
 *
 * Opens the CPU for external interruptions of one subclass (its bit in control register 0) and sleeps until one comes. One
 * that is pending already ends the wait immediately, so nothing is lost between, say, a service call and this wait. Control
 * register 0 and the PSW mask are left as they were.
 */
        .text
        .globl  wait_external
        .hidden wait_external
        .type   wait_external, @function
wait_external:
        aghi    %r15,-32
        stctg   %c0,%c0,160(%r15)
        lg      %r1,160(%r15)
        nill    %r1,(~SUBCLASSES) & 0xffff
        ogr     %r1,%r2
        stg     %r1,168(%r15)
        lctlg   %c0,%c0,168(%r15)
        epsw    %r0,%r1
        sllg    %r0,%r0,32
        llgfr   %r1,%r1
        ogr     %r0,%r1
        larl    %r1,woken
        stg     %r0,LC_EXTERNAL_NEW_PSW
        stg     %r1,LC_EXTERNAL_NEW_PSW+8
        oihh    %r0,(PSW_EXTERNAL + PSW_WAIT) >> 48
        stg     %r0,168(%r15)
        stg     %r1,176(%r15)           /* a waiting CPU never goes there by itself; it only has to be valid */
        lpswe   168(%r15)
woken:
        lctlg   %c0,%c0,160(%r15)
        aghi    %r15,32
        br      %r14
        .size   wait_external, .-wait_external

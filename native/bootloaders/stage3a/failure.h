/* SPDX-License-Identifier: MIT */
#ifndef FAILURE_H
#define FAILURE_H

#include <stdint.h>

/* Say on the console why the switch to protected mode (DIAGNOSE 308, subcode 10) came back with `response`. */
void report_failure(uint64_t response);

#endif

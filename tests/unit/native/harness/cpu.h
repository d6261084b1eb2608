/* SPDX-License-Identifier: MIT */
/* In place of native/common/cpu.h, whose instructions only s390x has. */
#ifndef CPU_H
#define CPU_H

#include <stddef.h>
#include <stdint.h>

#endif

"""DIAGNOSE 0x308, with which a program loads and resets its machine: functions and return codes.

The function is the number in general register R3. Sources: Linux (arch/s390/include/asm/diag.h, ipl.h) and QEMU
(target/s390x/diag.c), which name only what they use.
"""

from __future__ import annotations

import enum


class Subcode(enum.IntEnum):
    """Functions of DIAGNOSE 0x308."""

    MODIFIED_CLEAR = 0
    LOAD_NORMAL = 1
    LOAD_CLEAR = 3
    LOAD_NORMAL_DUMP = 4
    SET_IPL = 5
    STORE_IPL = 6
    SET_PV = 8
    STORE_PV = 9
    START_PV = 10


class ReturnCode(enum.IntEnum):
    """Return codes of DIAGNOSE 0x308, in general register R1+1."""

    OK = 0x0001
    NO_CONFIGURATION = 0x0102
    INVALID = 0x0402
    NO_PV_CONFIGURATION = 0x0902
    INVALID_FOR_PV = 0x0A02

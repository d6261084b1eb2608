"""Assigned storage locations: where a CPU and its operating system exchange interruptions.

Offsets are from the prefix, PSWs have 16 bytes, everything is big-endian. Source: z/Architecture Principles of
Operation, chapter 3, "Assigned Storage Locations".
"""

from __future__ import annotations

SIZE = 0x200
"""Bytes that cover the locations named here."""

EXTERNAL_PARAMETER, EXTERNAL_CPU, EXTERNAL_CODE = 0x80, 0x84, 0x86
SVC_LENGTH, SVC_CODE = 0x89, 0x8A
PROGRAM_LENGTH, PROGRAM_CODE = 0x8D, 0x8E
"""The interrupted instruction's length in bytes (1 byte), and the program-interruption code (2 bytes)."""
TRANSLATION_EXCEPTION = 0xA8

RESTART_OLD_PSW, RESTART_NEW_PSW = 0x120, 0x1A0
EXTERNAL_OLD_PSW, EXTERNAL_NEW_PSW = 0x130, 0x1B0
SVC_OLD_PSW, SVC_NEW_PSW = 0x140, 0x1C0
PROGRAM_OLD_PSW, PROGRAM_NEW_PSW = 0x150, 0x1D0

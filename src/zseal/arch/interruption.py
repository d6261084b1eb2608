"""Program interruptions: the codes used here and the exception that carries one."""

from __future__ import annotations

import enum


class ProgramCode(enum.IntEnum):
    """Program-interruption codes (16 bits, z/Architecture Principles of Operation; 0x3c to 0x3f: secure storage)."""

    OPERATION = 0x01
    PRIVILEGED_OPERATION = 0x02
    EXECUTE = 0x03
    PROTECTION = 0x04
    ADDRESSING = 0x05
    SPECIFICATION = 0x06
    DATA = 0x07
    FIXED_POINT_OVERFLOW = 0x08
    FIXED_POINT_DIVIDE = 0x09
    DECIMAL_OVERFLOW = 0x0A
    DECIMAL_DIVIDE = 0x0B
    HFP_EXPONENT_OVERFLOW = 0x0C
    HFP_EXPONENT_UNDERFLOW = 0x0D
    HFP_SIGNIFICANCE = 0x0E
    HFP_DIVIDE = 0x0F
    SEGMENT_TRANSLATION = 0x10
    PAGE_TRANSLATION = 0x11
    TRANSLATION_SPECIFICATION = 0x12
    SPECIAL_OPERATION = 0x13
    OPERAND = 0x15
    VECTOR_PROCESSING = 0x1B
    HFP_SQUARE_ROOT = 0x1D
    ALEN_TRANSLATION = 0x29
    ASCE_TYPE = 0x38
    REGION_FIRST_TRANSLATION = 0x39
    REGION_SECOND_TRANSLATION = 0x3A
    REGION_THIRD_TRANSLATION = 0x3B
    SECURE_PAGE_SIZE = 0x3C
    SECURE_STORAGE_ACCESS = 0x3D
    NON_SECURE_STORAGE_ACCESS = 0x3E
    SECURE_STORAGE_VIOLATION = 0x3F


class ProgramInterruption(Exception):  # noqa: N818 - the architecture's own word for it
    """An instruction or access that ends in a program interruption of the CPU (or host) that issued it.

    ``address`` is the failing byte address, if there is one; ``teid`` is the translation-exception identification.
    """

    def __init__(self, code: ProgramCode, address: int | None = None, *, teid: int | None = None) -> None:
        super().__init__(code, address)
        self.code = code
        self.address = address
        self.teid = teid

    def __str__(self) -> str:
        where = "" if self.address is None else f" at address {self.address:#x}"
        return f"program interruption {self.code:#06x} ({self.code.name.lower().replace('_', ' ')}){where}"

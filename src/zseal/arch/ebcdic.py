"""EBCDIC as the SCLP line-mode console and load parameters use it: code page 500, lines end with NL (0x15).

Linux's console driver (arch/s390/kernel/ebcdic.c, ``ASCEBC``) and s390-tools' bootloaders convert with code page 500;
Python's codec maps 0x25 (LF) to a line feed and 0x15 to U+0085, so the line end is exchanged here.
"""

from __future__ import annotations

_CODE_PAGE = "cp500"
NEW_LINE = 0x15
SPACE = 0x40


def decode(data: bytes) -> str:
    """Return ``data`` as text; NL (0x15) and LF (0x25) both become ``\\n``."""
    return data.decode(_CODE_PAGE).replace("\x85", "\n")


def encode(text: str) -> bytes:
    """Return ``text`` in EBCDIC, ``\\n`` as NL (0x15); characters that code page 500 lacks become question marks."""
    return text.replace("\n", "\x85").encode(_CODE_PAGE, "replace")


def decode_loadparm(data: bytes) -> str:
    """Return the text of an 8-byte load parameter, without the spaces and zeros that pad it."""
    return decode(data.rstrip(b"\x00\x40"))


def encode_loadparm(text: str) -> bytes:
    """Return ``text`` as an 8-byte load parameter, padded with spaces; raises ValueError if it cannot be one."""
    if len(text) > 8 or not all(c.isascii() and (c.isalnum() or c in ". ") for c in text):
        raise ValueError("a load parameter is at most 8 letters, digits, spaces and periods")
    return encode(text.upper()).ljust(8, bytes([SPACE]))

"""The list of host-key hashes that Linux shows on an IBM Z host: text, exactly 15 lines of 64 hexadecimal digits.

Line 1 is the host key, line 2 the backup host key; the other lines are reserved for future keys. Unused lines are
zeros.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from zseal.errors import FormatError
from zseal.formats.key_slot import KEY_HASH_SIZE

KEY_HASHES = "/sys/firmware/uv/keys/all"
"""Where Linux shows it."""
LINES = 15
MAX_SIZE = 2048
"""Upper limit of the size in bytes; 15 lines with their line ends have 990."""


@dataclasses.dataclass(frozen=True)
class ListedHash:
    """A hash (32 bytes) of the list: ``line`` counts from 1."""

    line: int
    phkh: bytes

    @property
    def name(self) -> str:
        """What the line stands for."""
        return {1: "host key", 2: "backup host key"}.get(self.line, f"key hash {self.line}")


def parse_key_hashes(text: str, where: str) -> tuple[ListedHash, ...]:
    """Return the hashes in ``text`` that are in use; the FormatError for any other content names ``where``."""
    lines = text.splitlines()
    if len(lines) != LINES:
        raise FormatError(f"a list of key hashes has {LINES} lines, this has {len(lines)}", where=where)
    hashes = []
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(r"[0-9a-fA-F]{64}", line):
            raise FormatError(f"line {number} is not a hash of 64 hexadecimal digits", where=where)
        hashes.append(ListedHash(number, bytes.fromhex(line)))
    return tuple(listed for listed in hashes if any(listed.phkh))


def pack_key_hashes(hashes: Sequence[bytes]) -> str:
    """Return the text that lists ``hashes``, the host key's first."""
    lines = [*hashes, *[bytes(KEY_HASH_SIZE)] * (LINES - len(hashes))]
    return "".join(f"{line.hex()}\n" for line in lines)

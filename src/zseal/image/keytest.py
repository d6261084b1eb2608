"""The list of host-key hashes that a host reports in sysfs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from zseal.errors import FormatError, InputError

KEY_HASHES = Path("/sys/firmware/uv/keys/all")
"""Where Linux on an IBM Z host lists the hashes of its host keys."""
LINES = 15
_MAX_FILE = 64 << 10


@dataclasses.dataclass(frozen=True)
class ListedHash:
    """A hash (32 bytes) of the list: ``line`` counts from 1; line 1 is the host key, line 2 the backup host key."""

    line: int
    phkh: bytes

    @property
    def name(self) -> str:
        """What the line stands for."""
        return {1: "host key", 2: "backup host key"}.get(self.line, f"key hash {self.line}")


def load_key_hashes(path: Path = KEY_HASHES) -> tuple[ListedHash, ...]:
    """Return the hashes in the file ``path``, without the zeros of unused lines.

    The file has exactly 15 lines of 64 hexadecimal digits. Raises InputError where it can't be read, FormatError for
    any other content.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_FILE).decode("ascii", "replace")
    except FileNotFoundError as error:
        hint = "only a Secure Execution host with a recent kernel has it" if path == KEY_HASHES else None
        raise InputError("cannot read the key hashes: no such file", where=str(path), hint=hint) from error
    except OSError as error:
        raise InputError(f"cannot read the key hashes: {error.strerror}", where=str(path)) from error
    return parse_key_hashes(text, str(path))


def parse_key_hashes(text: str, where: str) -> tuple[ListedHash, ...]:
    """Return the hashes in the content of such a file; ``where`` names it in the FormatError."""
    lines = text.splitlines()
    if len(lines) != LINES:
        raise FormatError(f"a list of key hashes has {LINES} lines, this has {len(lines)}", where=where)
    hashes = []
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(r"[0-9a-fA-F]{64}", line):
            raise FormatError(f"line {number} is not a hash of 64 hexadecimal digits", where=where)
        hashes.append(ListedHash(number, bytes.fromhex(line)))
    return tuple(listed for listed in hashes if any(listed.phkh))

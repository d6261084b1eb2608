"""The host-key hashes of a host, to test images with."""

from __future__ import annotations

from pathlib import Path

from zseal.errors import InputError
from zseal.files import read_limited
from zseal.formats.key_hashes import KEY_HASHES, MAX_SIZE, ListedHash, parse_key_hashes


def load_key_hashes(path: Path = Path(KEY_HASHES)) -> tuple[ListedHash, ...]:
    """Return the hashes in the file ``path``, without the zeros of unused lines.

    Raises InputError if it cannot be read, FormatError if it is not a list of key hashes.
    """
    if path == Path(KEY_HASHES) and not path.exists():
        hint = "only a Secure Execution host with a recent kernel has it"
        raise InputError("cannot read the list of key hashes: no such file", where=str(path), hint=hint)
    text = read_limited(path, MAX_SIZE, "list of key hashes").decode("ascii", "replace")
    return parse_key_hashes(text, str(path))

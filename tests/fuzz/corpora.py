"""Inputs that fuzzing kept: together they reach all that was reached so far. The unit tests try them again.

``make fuzz`` leaves new ones in ``build/fuzz/NAME``; to keep them, pack them together with the old ones:
``tar -C build/fuzz/NAME -cJf tests/fuzz/corpus/NAME.tar.xz .``
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

_FOLDER = Path(__file__).parent / "corpus"


def corpus(name: str) -> dict[str, bytes]:
    """Return the kept inputs of the target file ``name``."""
    with tarfile.open(_FOLDER / f"{name}.tar.xz") as archive:
        streams = {Path(member.name).name: archive.extractfile(member) for member in archive if member.isfile()}
        return {label: stream.read() for label, stream in streams.items() if stream}


def replay(name: str, targets: Sequence[Callable[[bytes], None]]) -> int:
    """Run the kept inputs of the target file ``name`` and return how many there are."""
    inputs = corpus(name).values()
    for data in inputs:
        targets[data[0] % len(targets)](data[1:])
    return len(inputs)

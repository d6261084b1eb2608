"""What the tests read from C sources: the numbers that have names, and the sentences of stage3a."""

from __future__ import annotations

import re

from tests.unit.native.building import NATIVE

ANY = 0xFFFF
"""Stands for every rrc in stage3a's table of causes."""


def defined(name: str) -> dict[str, int]:
    """Return the numbers that ``#define``s give names in a file of ``native/``."""
    text = (NATIVE / name).read_text()
    found = re.findall(r"^#define (\w+) (0x[0-9a-f]+|\d+)(?:ul)?(?=\s)", text, re.MULTILINE)
    return {each: int(value, 0) for each, value in found}


def causes() -> list[tuple[int, int, str]]:
    """Return stage3a's table of causes: rc, rrc (or ANY), and the sentence."""
    text = (NATIVE / "bootloaders/stage3a/failure.c").read_text()
    found = re.findall(r'\{(0x[0-9a-f]+), (0x[0-9a-f]+|ANY), "([^"]+)"\},', text)
    assert len(found) == text.count('"},')
    return [(int(rc, 0), ANY if rrc == "ANY" else int(rrc, 0), sentence) for rc, rrc, sentence in found]

"""Fuzzes certificates and CRLs: ``fuzz_hostkeys.py [DIRECTORY] [libFuzzer options]``; needs atheris."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["zseal"]):
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.fuzz.driver import fuzz
    from tests.fuzz.hostkey_targets import TARGETS, seeds

if __name__ == "__main__":
    fuzz("hostkeys", TARGETS, seeds())

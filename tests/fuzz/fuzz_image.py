"""Fuzzes image files: ``fuzz_image.py [DIRECTORY] [libFuzzer options]``; needs atheris."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["zseal"]):
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.fuzz.driver import fuzz
    from tests.fuzz.image_targets import TARGETS, seeds

if __name__ == "__main__":
    fuzz("image", TARGETS, seeds())

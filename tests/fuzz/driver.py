"""Coverage-guided fuzzing with atheris, which is libFuzzer for Python.

The first byte of an input selects the target, the rest is its data. Any exception but an error of ours, and any input
that takes long or much memory, is a finding.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import atheris

from tests.fuzz.corpora import corpus

Target = Callable[[bytes], None]


def fuzz(name: str, targets: Sequence[Target], seeds: Mapping[str, bytes]) -> None:
    """Fuzz until told to stop by libFuzzer's options on the command line (``-max_total_time=N``, ``-runs=N``).

    A directory on the command line gets the new inputs; without one they are dropped. ``seeds`` are inputs too large or
    too easily made to be kept.
    """

    def one_input(data: bytes) -> None:
        if data:
            targets[data[0] % len(targets)](data[1:])

    options = ["-timeout=20", "-rss_limit_mb=4096", "-malloc_limit_mb=1024"]
    with tempfile.TemporaryDirectory(prefix="zseal-fuzz-") as scratch:
        made, new = Path(scratch) / "seeds", Path(scratch) / "new"
        made.mkdir()
        new.mkdir()
        for label, content in (corpus(name) | dict(seeds)).items():
            (made / label).write_bytes(content)
        folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")] or [str(new)]
        options += [argument for argument in sys.argv[1:] if argument.startswith("-")]
        atheris.Setup([sys.argv[0], *options, *folders, str(made)], one_input)
        atheris.Fuzz()

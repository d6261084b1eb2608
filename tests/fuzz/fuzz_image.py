"""Coverage-guided fuzzing of image files: ``python tests/fuzz/fuzz_image.py [CORPUS] [libFuzzer options]``.

Needs atheris. The first byte of an input selects the target, the rest is its data. Without a corpus directory it starts
from the published vectors alone. Any exception but an error of ours, and any input that takes long, is a finding.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["zseal"]):
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.fuzz.image_targets import IPIB_OFFSET, TARGETS, VECTORS, known_image


def one_input(data: bytes) -> None:
    """Run the target that the first byte selects."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def write_seeds(folder: Path) -> None:
    """Put inputs into ``folder`` that reach the depth of every target."""
    header = (VECTORS / "se-hdr-genprotimg-2.35.bin").read_bytes()
    ipib = known_image()[IPIB_OFFSET:]
    hashes = b"\n".join([b"ab" * 32] * 15) + b"\n"
    patch = (0x14020).to_bytes(3, "big") + b"\x08" + bytes(8)
    seeds = {
        "layouts-header": b"\0" + header,
        "layouts-ipib": b"\0" + ipib,
        "layouts-hashes": b"\0" + hashes,
        "file-header": b"\1" + header,
        "file-image": b"\1" + known_image(),
        "patched": b"\2" + patch,
        "component-list": b"\3" + ipib,
        "inputs": b"\4" + b"kernel" * 100,
    }
    for name, content in seeds.items():
        (folder / name).write_bytes(content)


def main() -> None:
    """Fuzz until told to stop (``-max_total_time=N``, ``-runs=N``)."""
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="zseal-fuzz-") as seeds:
        write_seeds(Path(seeds))
        corpus = [argument for argument in arguments if not argument.startswith("-")]
        options = [argument for argument in arguments if argument.startswith("-")]
        atheris.Setup(
            [sys.argv[0], "-timeout=20", "-rss_limit_mb=4096", "-malloc_limit_mb=1024", *options, *corpus, seeds],
            one_input,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()

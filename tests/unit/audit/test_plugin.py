"""The compiled parts in the package are what the sources in ``plugin/`` compile to, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
ENGINE = REPOSITORY / "src" / "zseal" / "engine"
PACKAGED = (ENGINE / "qemu" / "plugin", ENGINE / "native")


@pytest.mark.xdist_group("boot-build")
def test_packaged_parts_are_what_their_sources_make(tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "-C", REPOSITORY / "plugin", f"BUILD={tmp_path}", f"ZIG={sys.executable} -m ziglang"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert made.returncode == 0, f"the pinned compiler is missing or the source doesn't build:\n{made.stderr}"
    built = {path.name: path.read_bytes() for path in tmp_path.glob("*.so")}
    packaged = {path.name: path.read_bytes() for folder in PACKAGED for path in folder.iterdir()}
    assert built == packaged, "run `make -C plugin install` and commit the result"

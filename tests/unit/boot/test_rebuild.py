"""The blobs in the package are what the sources in ``boot/`` compile to, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from zseal.image.bootloaders import Bootloaders
from zseal.testguest import kernel

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boot") / "another-folder-than-usual"
    made = subprocess.run(
        ["make", "-C", REPOSITORY / "boot", f"BUILD={folder}", f"ZIG={sys.executable} -m ziglang"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert made.returncode == 0, f"the pinned compiler is missing or the sources don't build:\n{made.stderr}"
    return folder


@pytest.mark.parametrize(
    ("name", "packaged"),
    [
        ("stage3a.bin", Bootloaders.default().stage3a),
        ("stage3b.bin", Bootloaders.default().stage3b),
        ("testguest.bin", kernel()),
    ],
    ids=["stage3a", "stage3b", "testguest"],
)
@pytest.mark.xdist_group("boot-build")
def test_packaged_blob_is_what_the_sources_make(build: Path, name: str, packaged: bytes) -> None:
    assert (build / name).read_bytes() == packaged, "run `make -C boot install` and commit the result"


@pytest.mark.parametrize("blob", [Bootloaders.default().stage3a, Bootloaders.default().stage3b, kernel()])
def test_no_trace_of_where_it_was_built(blob: bytes) -> None:
    for trace in (b"clang", b"LLVM", b"Linker", b"GCC", b"/home", b"/root", b"/tmp", b"boot/", b".c\0"):
        assert trace not in blob

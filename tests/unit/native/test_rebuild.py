"""The compiled parts in the package are what the sources in ``native/`` compile to, bit for bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from tests.waiting import PATIENCE

PACKAGE = REPOSITORY / "src" / "zseal" / "_native"
PACKAGED = {path.name: path.read_bytes() for path in sorted(PACKAGE.iterdir()) if path.suffix in (".bin", ".so")}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native") / "another-folder-than-usual"
    made = subprocess.run(
        ["make", "-C", REPOSITORY / "native", f"BUILD={folder}", f"ZIG={sys.executable} -m ziglang"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert made.returncode == 0, f"the pinned compiler is missing or the sources don't build:\n{made.stderr}"
    return folder


@pytest.mark.xdist_group("native-build")
def test_the_package_has_all_that_the_sources_make(build: Path) -> None:
    built = {path.name for path in build.iterdir() if path.suffix in (".bin", ".so")}
    assert built == set(PACKAGED)
    assert len(built) == 3 + 2 * 2


@pytest.mark.parametrize("name", PACKAGED)
@pytest.mark.xdist_group("native-build")
def test_packaged_part_is_what_the_sources_make(build: Path, name: str) -> None:
    assert (build / name).read_bytes() == PACKAGED[name], "run `make native` and commit the result"


@pytest.mark.parametrize("name", PACKAGED)
def test_no_trace_of_where_it_was_built(name: str) -> None:
    for trace in (b"/home", b"/root", b"/tmp", b"native/", b"common/", b".c\0"):
        assert trace not in PACKAGED[name]


@pytest.mark.parametrize("name", [name for name in PACKAGED if name.endswith(".bin")])
def test_no_trace_of_the_compiler_in_what_a_guest_executes(name: str) -> None:
    for trace in (b"clang", b"LLVM", b"Linker", b"GCC"):
        assert trace not in PACKAGED[name]

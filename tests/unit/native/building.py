"""C sources built for this computer: as libraries that tests call, with sanitizers in the runs that are for them.

``test_sanitized.py`` runs tests a second time, in a process that has the sanitizers' runtimes loaded; there ``build``
makes every access outside an object and all undefined behaviour end the process.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.paths import REPOSITORY
from tests.waiting import PATIENCE

NATIVE = REPOSITORY / "native"
HARNESS = Path(__file__).parent / "harness"

_COMPILER = "gcc"
_VARIABLE = "ZSEAL_TEST_SANITIZED"
_EXAMPLES = "ZSEAL_TEST_EXAMPLES"
"""For runs that look for more: a number of examples for each of these tests."""
_FLAGS = ("-std=gnu11", "-g", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
_SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def is_sanitized() -> bool:
    """Whether this process has the sanitizers' runtimes."""
    return _VARIABLE in os.environ


def examples(count: int) -> int:
    """Return how many random examples to try, ``count`` in an ordinary run: a quarter where each takes much longer."""
    return int(os.environ.get(_EXAMPLES, "0")) or (count // 4 if is_sanitized() else count)


def sanitized_environment() -> dict[str, str]:
    """Return the environment of a Python in which ``build`` sanitizes; fails if the compiler has no sanitizers.

    Python's own allocator is off, so that each object of more than a few bytes has a fence around it.
    """
    return {
        **os.environ,
        _VARIABLE: "1",
        "LD_PRELOAD": " ".join(_runtime(name) for name in ("libasan.so", "libubsan.so")),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",  # Python itself frees less than all
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def build(folder: Path, name: str, sources: Sequence[Path], *, options: Sequence[str] = ()) -> Path:
    """Compile ``sources`` with further ``options`` into the library ``name`` in ``folder``; returns its path."""
    path = folder / f"{name}.so"
    flags = (*_FLAGS, *(_SANITIZERS if is_sanitized() else ("-O2",)))
    made = subprocess.run(
        [_COMPILER, *flags, *options, "-o", path, *sources],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert made.returncode == 0, f"{name} does not compile:\n{made.stderr}"
    return path


def _runtime(name: str) -> str:
    """Return the path of one of the compiler's libraries."""
    found = subprocess.run([_COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    assert Path(path).is_absolute(), f"{_COMPILER} has no {name}: install the compiler's sanitizers"
    return path

"""The compiled parts of zseal: guest programs, and libraries for the computers it runs on.

Built from ``native/`` of the repository; a test rebuilds each of them bit for bit.
"""

from __future__ import annotations

import importlib.resources
import platform
from pathlib import Path


def guest_program(name: str) -> bytes:
    """Return the raw s390x binary ``name``: ``stage3a``, ``stage3b`` or ``testguest``."""
    return (importlib.resources.files(__name__) / f"{name}.bin").read_bytes()


def library(name: str) -> Path | None:
    """Return the shared library ``name``, ``qemu_plugin`` or ``unicorn_hook``, for this kind of computer.

    None if there is none for it, or if the package is not in a directory (a zip file, for example).
    """
    path = importlib.resources.files(__name__) / f"{name}-{platform.machine()}.so"
    return path if isinstance(path, Path) and path.is_file() else None

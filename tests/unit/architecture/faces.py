"""What programs import from. ``python -m tests.unit.architecture.faces`` lists the names of all faces."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import zseal

SURFACE = Path(__file__).with_name("surface.txt")


def faces() -> dict[str, ModuleType]:
    """Return what programs import from: zseal, and the packages and modules directly in it that have ``__all__``."""
    found = {"zseal": zseal}
    for each in pkgutil.iter_modules(zseal.__path__, "zseal."):
        if not each.name.rpartition(".")[2].startswith("_"):
            module = importlib.import_module(each.name)
            if hasattr(module, "__all__"):
                found[each.name] = module
    return found


FACES = faces()


def offered() -> list[str]:
    """Return the names of all faces."""
    return sorted(f"{face}.{name}" for face, module in FACES.items() for name in module.__all__)


if __name__ == "__main__":
    SURFACE.write_text("".join(f"{name}\n" for name in offered()))

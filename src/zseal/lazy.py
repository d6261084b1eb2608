"""Packages that offer names of their modules without importing these before they are needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable


def lazy_names(package: str, **modules: tuple[str, ...]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package that offers, by module, these names."""
    places = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{places[name]}"), name)

    return find

"""Packages that offer names of their modules without importing the modules before they are needed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_names(
    package: str, elsewhere: Mapping[str, tuple[str, ...]] | None = None, /, **modules: tuple[str, ...]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and the ``__dir__`` of a package that offers these names, listed by module.

    ``elsewhere`` lists names of other packages, by the full name of their module.

    Hide the assignment from type checkers, which would believe that the package has every name::

        if not TYPE_CHECKING:
            __getattr__, __dir__ = lazy_names(__name__, build=("build_image",))
    """
    full = {f"{package}.{module}": names for module, names in modules.items()} | dict(elsewhere or {})
    places = {name: module for module, names in full.items() for name in names}

    def find(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(places[name]), name)

    def names() -> list[str]:
        # names that the package itself imported are not part of its face
        return sorted({name for name in vars(sys.modules[package]) if name.startswith("__")} | set(places))

    return find, names

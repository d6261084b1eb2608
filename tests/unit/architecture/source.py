"""The modules of src/zseal and what each of them imports, read from the source without running it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.paths import REPOSITORY

SOURCE = REPOSITORY / "src"


@dataclass(frozen=True, kw_only=True)
class Import:
    """A module imports another one of zseal."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer} (line {self.line}) imports {self.imported}"


@dataclass(frozen=True, kw_only=True)
class Module:
    """A module: its dotted name, where it is, its number of lines, and what it imports of zseal.

    An import in a function, or for type checkers alone, counts like any other: the module knows of the other one.
    """

    name: str
    path: Path
    lines: int
    imports: tuple[Import, ...]

    @property
    def place(self) -> tuple[str, ...]:
        """The name in parts; the module that a package itself is, is called ``__init__`` in it."""
        parts = tuple(self.name.split("."))
        return (*parts, "__init__") if self.path.name == "__init__.py" else parts

    @property
    def package(self) -> str:
        """The package of zseal that the module is in; the module itself if it is in none."""
        return self.place[1]


@functools.cache
def modules() -> dict[str, Module]:
    """All modules of zseal by name."""
    paths = {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(SOURCE.glob("zseal/**/*.py"))
    }
    return {name: _read(name, path, paths) for name, path in paths.items()}


def all_imports() -> Iterator[tuple[Module, Module, Import]]:
    """Each import, with the module that imports and the one that is imported."""
    for module in modules().values():
        for each in module.imports:
            yield module, modules()[each.imported], each


def _read(name: str, path: Path, known: Collection[str]) -> Module:
    text = path.read_text(encoding="utf-8")
    found = sorted({item for item in _imported(ast.parse(text), known) if item[0] != name})
    imports = tuple(Import(importer=name, imported=imported, line=line) for imported, line in found)
    return Module(name=name, path=path, lines=len(text.splitlines()), imports=imports)


def _imported(tree: ast.Module, known: Collection[str]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module in known:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield (submodule if submodule in known else node.module), node.lineno

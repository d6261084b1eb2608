"""What each face offers is documented, found by dir() and type checkers, and changes on purpose."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

from tests.unit.architecture.faces import FACES, SURFACE, offered

# each takes longer to import than everything that a program may import without using it
HEAVY = ("asyncio", "cryptography", "libvirt", "lxml", "numpy", "PIL", "rich", "typer", "unicorn")


def documented_constants(module: ModuleType) -> set[str]:
    """Return the names that ``module`` assigns and describes by a string below the assignment."""
    found = set()
    body = ast.parse(inspect.getsource(module)).body
    for statement, below in itertools.pairwise(body):
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def test_the_surface_changes_only_with_its_list() -> None:
    """A name that leaves it breaks programs of users: say so in CHANGELOG.md.

    ``python -m tests.unit.architecture.faces`` writes the list anew.
    """
    frozen = SURFACE.read_text().split()
    now = offered()
    assert ({*frozen} - {*now}, {*now} - {*frozen}) == (set(), set())
    assert frozen == sorted(frozen)


@pytest.mark.parametrize("face", FACES)
def test_every_name_of_a_face_exists_and_is_documented(face: str) -> None:
    module = FACES[face]
    assert module.__doc__
    sources = [module, *(importlib.import_module(f"{face}.{child}") for child in submodules(module))]
    constants = {name for source in sources for name in documented_constants(source)}
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            # dataclasses get a signature as their documentation where they have none
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{name}("), name
        elif not name.startswith("__"):
            assert name in constants or getattr(value, "__doc__", None) not in (None, type(value).__doc__), name


def submodules(module: ModuleType) -> list[str]:
    found = (each.name for each in pkgutil.iter_modules(getattr(module, "__path__", [])))
    return [name for name in found if name != "__main__"]


@pytest.mark.parametrize("face", FACES)
def test_dir_and_help_show_exactly_the_names_of_a_face(face: str) -> None:
    module = FACES[face]
    if hasattr(module, "__getattr__"):
        assert {name for name in dir(module) if not name.startswith("__")} == {
            name for name in module.__all__ if not name.startswith("__")
        }
    assert {*module.__all__} <= {*dir(module)}
    assert len({*module.__all__}) == len(module.__all__)


@pytest.mark.parametrize("face", FACES)
def test_no_submodule_takes_the_place_of_a_name(face: str) -> None:
    """Importing zseal.x.y sets the attribute y of zseal.x, whatever that was before."""
    assert {*submodules(FACES[face])} & {*FACES[face].__all__} == set()


def test_a_class_name_means_one_thing_in_all_faces() -> None:
    meanings: dict[str, set[object]] = {}
    for module in FACES.values():
        for name in module.__all__:
            if inspect.isclass(value := getattr(module, name)):
                meanings.setdefault(name, set()).add(value)
    assert {name: values for name, values in meanings.items() if len(values) > 1} == {}


def test_an_absent_name_is_an_attribute_error_that_names_the_package() -> None:
    for face, module in FACES.items():
        with pytest.raises(AttributeError, match=f"'{face}' has no attribute 'no_such_name'"):
            _ = module.no_such_name


def test_importing_a_face_imports_nothing_heavy() -> None:
    program = f"""
import importlib, sys
before = {{*sys.modules}}
for face in {[face for face in FACES if face != "zseal.pytest_plugin"]!r}:
    importlib.import_module(face)
    found = {{*{HEAVY!r}}} & ({{*sys.modules}} - before)
    assert not found, (face, found)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

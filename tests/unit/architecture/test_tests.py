"""Tests stand where a reader looks for them: unit tests in the directories of what they test."""

from __future__ import annotations

from tests.paths import REPOSITORY

UNIT = REPOSITORY / "tests" / "unit"
OTHERS = {
    "architecture": "the structure of src/zseal",
    "benchmarks": "benchmarks/",
    "docs": "docs/",
    "native": "native/",
    "pytest_plugin": "src/zseal/pytest_plugin.py",
    "repository": "the repository's own files",
}


def test_unit_tests_are_in_the_directories_of_what_they_test() -> None:
    packages = {path.parent.relative_to(REPOSITORY / "src/zseal") for path in REPOSITORY.glob("src/zseal/**/*.py")}
    found = {path.parent.relative_to(UNIT) for path in UNIT.rglob("test_*.py")}
    strangers = {str(path) for path in found - packages} - OTHERS.keys()
    assert not strangers, f"tests/unit: {sorted(strangers)}: name each after the package of src/zseal that it tests"


def test_every_directory_of_tests_is_known_once() -> None:
    found = {path.parent.name for path in UNIT.glob("*/test_*.py")}
    gone = OTHERS.keys() - found
    assert not gone, f"tests/unit has no {sorted(gone)} any longer: remove the name here"

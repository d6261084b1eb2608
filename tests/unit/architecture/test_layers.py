"""Imports between packages point down, as the table in layers.py allows them."""

from __future__ import annotations

import pytest

from tests.unit.architecture.layers import GROUND, LAYERS, may_import
from tests.unit.architecture.source import all_imports, modules

TABLE = GROUND | LAYERS


def test_the_table_has_every_package_once() -> None:
    packages = {module.package for module in modules().values()}
    assert packages == TABLE.keys(), "a package is missing in layers.py, or is not there any longer"
    assert not GROUND.keys() & LAYERS.keys()


def test_the_table_allows_arrows_that_point_down_only() -> None:
    above: set[str] = set()
    for package, allowed in TABLE.items():
        upward = set(allowed.split()) - above
        assert not upward, f"layers.py lets {package} import {sorted(upward)}, which are not above it in the table"
        above.add(package)


@pytest.mark.parametrize("package", TABLE)
def test_a_package_imports_only_what_the_table_allows(package: str) -> None:
    wrong = [
        str(found)
        for importer, imported, found in all_imports()
        if importer.package == package and imported.package not in may_import(package)
    ]
    assert not wrong, f"{package} may import {sorted(may_import(package))} only (layers.py):\n" + "\n".join(wrong)


def test_the_table_allows_no_more_than_is_needed() -> None:
    used = {(importer.package, imported.package) for importer, imported, _ in all_imports()}
    spare = [
        f"{package} -> {each}"
        for package, allowed in TABLE.items()
        for each in allowed.split()
        if (package, each) not in used
    ]
    assert not spare, f"remove from layers.py what nothing uses any longer: {', '.join(spare)}"

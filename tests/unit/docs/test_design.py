"""The design page's directions lead somewhere: a stranger who follows one finds what it promises."""

import ast
import re

import pytest

from tests.paths import REPOSITORY

PAGE = (REPOSITORY / "docs" / "design.md").read_text()
ROWS = re.findall(r"^\| [^|]+ \| `(src/[^`]+)`(?:: `([^`]+)`)?", PAGE, re.MULTILINE)


def definitions(tree: ast.Module) -> set[str]:
    """Return all names that a module defines, methods as ``Class.method``."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def test_the_page_answers_where_things_are() -> None:
    assert len(ROWS) >= 12


@pytest.mark.parametrize(("path", "name"), ROWS, ids=[path for path, _ in ROWS])
def test_a_direction_leads_to_its_definition(path: str, name: str) -> None:
    place = REPOSITORY / path
    assert place.exists()
    if name:
        assert name in definitions(ast.parse(place.read_text()))


def test_every_file_on_the_page_exists() -> None:
    named = re.findall(r"`((?:[a-z]\w+/)+\w*(?:\.\w+)?)`", PAGE)
    roots = (REPOSITORY, REPOSITORY / "src" / "zseal")
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []

"""The Python in the documentation imports from faces only: what it shows is what does not change without notice."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import zseal
from tests.paths import REPOSITORY

# a reference has signatures where other pages have examples
REFERENCES = {REPOSITORY / "docs" / name for name in ("api.md", "ultravisor/reference.md")}
PAGES = sorted({*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")} - REFERENCES)


def blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def problems(code: str) -> Iterator[str]:
    """Say what ``code`` takes from zseal that no face offers."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "zseal":
            offered = getattr(importlib.import_module(str(node.module)), "__all__", None)
            if offered is None or str(node.module).count(".") > 1:
                yield f"{node.module} is not a face"
                continue
            yield from (f"{node.module} does not offer {name.name}" for name in node.names if name.name not in offered)
        elif isinstance(node, ast.Import):
            yield from (f"{name.name} is not a face" for name in node.names if name.name.startswith("zseal."))
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "zseal" and node.attr not in zseal.__all__:
            yield f"zseal does not offer {node.attr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_page_takes_what_it_uses_from_faces(page: Path) -> None:
    assert [problem for block in blocks(page.read_text()) for problem in problems(block)] == []


def test_the_faces_own_examples_take_what_they_use_from_faces() -> None:
    found = []
    for path in (REPOSITORY / "src/zseal/__init__.py", *(REPOSITORY / "src/zseal").glob("*/__init__.py")):
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        for example in re.findall(r"::\n\n((?:    .*\n|\n)+)", doc + "\n"):
            found.append(example)
            assert list(problems(textwrap.dedent(example))) == [], path
    assert len(found) >= 3


def test_what_is_private_is_found_out() -> None:
    assert list(problems("from zseal.guest.guest import Guest")) == ["zseal.guest.guest is not a face"]
    assert list(problems("from zseal.files import write_atomic")) == ["zseal.files is not a face"]
    assert list(problems("from zseal.guest import Session")) == ["zseal.guest does not offer Session"]
    assert list(problems("import zseal.image.build")) == ["zseal.image.build is not a face"]
    assert list(problems("import zseal\nzseal.Session()")) == ["zseal does not offer Session"]
    assert list(problems("from zseal import Guest\nfrom zseal.image import build_image")) == []

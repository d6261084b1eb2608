"""The pages made from docstrings are of today, and describe every name of every face."""

from __future__ import annotations

import re

import pytest

from tests.paths import DOCS, REPOSITORY
from tests.programs import load_program
from tests.unit.architecture.faces import FACES

PAGES: dict[str, str] = load_program(DOCS / "reference.py").pages()


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_of_today(page: str) -> None:
    assert PAGES[page] == (DOCS / page).read_text(), "run: python docs/reference.py"


def test_every_name_is_described_once() -> None:
    described = re.findall(r'<a id="([\w.]+)"></a>\n\n### `(\w+)[^\n]*\n\n(.*)', "".join(PAGES.values()))
    expected = {
        f"{face}.{name}"
        for face, module in FACES.items()
        for name in module.__all__
        if face != "zseal" and not name.startswith("__")
    }
    assert sorted(anchor for anchor, _, _ in described) == sorted(expected)
    for anchor, title, text in described:
        assert anchor.endswith(f".{title}")
        assert text, f"{anchor} is not documented"


def test_what_import_zseal_offers_is_listed() -> None:
    overview = PAGES["api.md"].partition("\n## `zseal`\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \[`(\w+)`\]\(\S+\) \| (\S.*) \|$", overview, re.MULTILINE)
    assert {name for name, _ in rows} == {*FACES["zseal"].__all__} - {"__version__"}


def test_readers_find_the_pages() -> None:
    assert "(docs/api.md)" in (REPOSITORY / "README.md").read_text()

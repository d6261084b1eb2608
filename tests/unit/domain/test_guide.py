"""The Python example of docs/domains/README.md does what it says: it is executed as it stands."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.paths import DOCS
from tests.unit.domain.samples import read

PAGE = DOCS / "domains" / "README.md"


def test_the_python_example_prints_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("guest.xml").write_bytes(read("bad-PV202-interface.xml"))
    match = re.search(
        r"^```python\n(.*?)^```\n\nIt prints:\n\n```\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert match is not None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(match[1], str(PAGE), "exec"), {})
    assert printed.getvalue() == match[2]

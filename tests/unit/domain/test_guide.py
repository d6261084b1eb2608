"""The pages about domains: their example is executed, and their commands print what the pages show."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from tests.paths import DOCS
from tests.unit.domain.samples import read
from zseal.cli.main import main

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


def test_the_commands_of_the_page_about_pcs_print_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (PAGE.parent / "port.md").read_text()
    match = re.search(r"^```xml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert match is not None
    Path("pc.xml").write_text(match[1])
    shown = re.findall(r"^```console\n\$ zseal (.*?)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(shown) == 2
    for command, output in shown:
        with pytest.raises(SystemExit) as caught:
            main(shlex.split(command))
        out, err = capfd.readouterr()
        code = f"[exit code {caught.value.code}]\n" if caught.value.code else ""
        assert out + err + code == output

"""The guide "Verify host keys": its commands print what it shows, its Python examples run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.paths import DOCS
from zseal.cli.main import main

GUIDE = (DOCS / "host-keys.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def without_what_varies(text: str) -> str:
    text = re.sub(r"\b[0-9a-f]{15,}\b", "<hex>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\+00:00| UTC)?)?", "<date>", text)
    return re.sub(r" +\d+ days", " <days>", text)


def test_commands_print_what_the_guide_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = "".join(blocks("console"))
    printed = ""
    commands = re.findall(r"^\$ zseal (.*)$", shown, re.MULTILINE)
    assert len(commands) > 8
    for command in commands:
        with pytest.raises(SystemExit) as caught:
            main(shlex.split(command))
        out, err = capfd.readouterr()
        printed += f"$ zseal {command}\n{out}{err}"
        if caught.value.code:
            printed += f"[exit code {caught.value.code}]\n"
    assert without_what_varies(printed).splitlines() == without_what_varies(shown).splitlines()


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    examples = blocks("python")
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "host-keys.md", "exec"), names)
    assert names["asked"]

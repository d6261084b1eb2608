"""What docs/ultravisor.md shows is true: its code runs, its pictures are of today, its tests exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from tests.paths import REPOSITORY
from tests.programs import load_program
from zseal import ultravisor

ROOT = REPOSITORY
FOLDER = ROOT / "docs" / "ultravisor"
PAGE = (ROOT / "docs" / "ultravisor.md").read_text()


def test_the_code_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 5
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        names: dict[str, object] = {}
        exec(compile("\n".join(blocks), "docs/ultravisor.md", "exec"), names)
    assert "secure storage access" in printed.getvalue()
    shown = names["shown"]
    assert isinstance(shown, tuple)
    runs, log, _ = shown
    assert f"```\n{runs}```" in PAGE
    for line in log:
        assert re.sub(r"^ *[0-9.]+ ", "", line) in PAGE  # all but the time


def test_the_reference_has_every_name() -> None:
    made = (FOLDER / "reference.md").read_text()
    for name in ultravisor.__all__:
        assert re.search(rf"^### `{name}\b", made, re.MULTILINE), name
    assert "(ultravisor/reference.md)" in PAGE


def test_the_pictures_are_of_today() -> None:
    made = load_program(FOLDER / "pictures.py").pictures()
    assert made == {path.name: path.read_text() for path in FOLDER.glob("*.svg")}, "run docs/ultravisor/pictures.py"
    shown = set(re.findall(r"\(ultravisor/(\S+\.svg)\)", PAGE))
    assert shown == set(made)


def test_every_promise_has_a_test_and_every_test_is_listed() -> None:
    listed = re.findall(r"`(\S+\.py): (test_\w+)`", PAGE)
    for file, name in listed:
        folder = ROOT / "tests" / ("" if file.startswith("integration/") else "unit")
        assert f"def {name}(" in (folder / file).read_text(), name
    names = {name for _, name in listed}
    for path in Path(__file__).parent.glob("test_*.py"):
        for name in re.findall(r"^def (test_promise_\w+)\(", path.read_text(), re.MULTILINE):
            assert name in names, name

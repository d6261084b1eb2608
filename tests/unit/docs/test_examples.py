"""The Python examples about running guests have the right types for a type checker, exactly as they are printed."""

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import zseal
from tests.paths import DOCS

PAGES = ("run", "testing")


def test_examples_have_the_right_types(tmp_path: Path) -> None:
    files = []
    for page in PAGES:
        examples = re.findall(r"^```python\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
        assert examples, f"docs/{page}.md has no example"
        for number, text in enumerate(examples, 1):
            files.append(tmp_path / f"{page}_{number}.py")
            files[-1].write_text(text)
    first = re.search(r"::\n\n((?:    .*\n|\n)+)", inspect.getdoc(zseal) or "")
    assert first, "help(zseal) has no example"
    files.append(tmp_path / "zseal_help.py")
    files[-1].write_text(textwrap.dedent(first[1]))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *(path.name for path in files)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

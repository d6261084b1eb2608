"""The Python examples of the pages about running guests are right for whoever checks types: as they stand."""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"
PAGES = ("run", "testing")


def test_examples_have_the_right_types(tmp_path: Path) -> None:
    files = []
    for page in PAGES:
        examples = re.findall(r"^```python\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.DOTALL | re.MULTILINE)
        assert examples, f"docs/{page}.md has no example"
        for number, text in enumerate(examples, 1):
            files.append(tmp_path / f"{page}_{number}.py")
            files[-1].write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *(path.name for path in files)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""Names that are imported when first used: type checkers know them as well."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.unit.architecture.faces import FACES


def test_type_checkers_know_every_name_and_no_other(tmp_path: Path) -> None:
    for face, module in FACES.items():
        (tmp_path / f"right_{face.replace('.', '_')}.py").write_text(
            f"from {face} import {', '.join(module.__all__)}\n"
        )
    (tmp_path / "wrong.py").write_text("\n".join(f"from {face} import no_such_name" for face in FACES) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "."], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "right_" not in done.stdout, done.stdout
    assert done.stdout.count('has no attribute "no_such_name"') == len(FACES), done.stdout

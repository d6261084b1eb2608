"""How fast 1,000 domain files are linted, against the time libvirt's own schema check takes for the same files.

Run: ``python benchmarks/domain.py``. Both are measured in one run, in this process, without their start-up; the third
figure is a whole ``zseal domain lint`` over the 1,000 files, start-up included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from zseal.domain.document import Document
from zseal.domain.lint import LintSettings, lint_bytes
from zseal.domain.schema import installed_schema

FILES = 1000
VECTORS = Path(__file__).parents[1] / "tests" / "vectors" / "domains"


def _inputs() -> list[bytes]:
    samples = [path.read_bytes() for path in sorted(VECTORS.glob("*.xml")) if not path.name.startswith("caps-")]
    return [samples[number % len(samples)] for number in range(FILES)]


def _timed_lint(inputs: list[bytes], *, schema: bool) -> float:
    settings = LintSettings(schema=schema, local_files=False)
    start = time.perf_counter()
    for raw in inputs:
        lint_bytes("benchmark", raw, settings)
    return time.perf_counter() - start


def _timed_schema(inputs: list[bytes]) -> float | None:
    schema = installed_schema()
    if schema is None:
        return None
    documents = [Document("benchmark", raw) for raw in inputs if b"cache='none' io='native'>" not in raw]
    start = time.perf_counter()
    for document in documents:
        schema.validate(document)
    return (time.perf_counter() - start) * FILES / len(documents)


def _timed_command(inputs: list[bytes]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        for number, raw in enumerate(inputs):
            (Path(folder) / f"{number}.xml").write_bytes(raw)
        files = sorted(str(path) for path in Path(folder).iterdir())
        start = time.perf_counter()
        command = [sys.executable, "-m", "zseal", "domain", "lint", "--format", "json", *files]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        seconds = time.perf_counter() - start
        assert len(json.loads(done.stdout)["files"]) == FILES
    return seconds


def main() -> None:
    """Measure and print."""
    inputs = _inputs()
    _timed_lint(inputs[:80], schema=True)  # imports and the schema are loaded now
    rules, whole, schema = _timed_lint(inputs, schema=False), _timed_lint(inputs, schema=True), _timed_schema(inputs)
    result = {
        "files": FILES,
        "lint_seconds": round(whole, 3),
        "rules_only_seconds": round(rules, 3),
        "schema_only_seconds": round(schema, 3) if schema is not None else None,
        "lint_to_schema_ratio": round(whole / schema, 2) if schema is not None else None,
        "command_seconds": round(_timed_command(inputs), 3),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

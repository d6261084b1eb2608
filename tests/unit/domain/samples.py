"""The sample domains of tests/vectors/domains, and what their MANIFEST.tsv says of each."""

from __future__ import annotations

import csv
import dataclasses

from tests import paths

VECTORS = paths.VECTORS / "domains"


@dataclasses.dataclass(frozen=True)
class Sample:
    name: str
    style: str
    rules: frozenset[str]

    @property
    def raw(self) -> bytes:
        return (VECTORS / self.name).read_bytes()


def _samples() -> list[Sample]:
    with (VECTORS / "MANIFEST.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return [
        Sample(row["file"], row["style"], frozenset(row["expected_rules"].split(",")) - {"-"})
        for row in rows
        if row["style"] != "domaincaps"
    ]


SAMPLES = _samples()
GOOD = [sample for sample in SAMPLES if sample.name.startswith(("ok-", "conv-"))]


def read(name: str) -> bytes:
    return (VECTORS / name).read_bytes()

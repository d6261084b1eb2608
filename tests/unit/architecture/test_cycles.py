"""No circles of imports: not between packages, not between the modules and directories inside one."""

from __future__ import annotations

import itertools
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.unit.architecture.source import Import, all_imports

Graph = dict[str, dict[str, Import]]


def _graphs() -> dict[str, Graph]:
    """For each directory, which of its entries (modules, and directories as a whole) import which."""
    graphs: dict[str, Graph] = defaultdict(lambda: defaultdict(dict))
    for importer, imported, found in all_imports():
        ours, theirs = importer.place, imported.place
        same = next(i for i, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other)
        graphs["/".join(ours[:same])][ours[same]].setdefault(theirs[same], found)
    return graphs


GRAPHS = _graphs()


@pytest.mark.parametrize("directory", GRAPHS)
def test_what_is_in_a_directory_imports_each_other_in_one_direction(directory: str) -> None:
    graph = GRAPHS[directory]
    try:
        TopologicalSorter({entry: set(imported) for entry, imported in graph.items()}).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][::-1]  # graphlib lists what comes first, first
        steps = [str(graph[one][other]) for one, other in itertools.pairwise(circle)]
        pytest.fail(f"src/{directory}: a circle of imports:\n" + "\n".join(steps))


def test_a_circle_would_be_found() -> None:
    assert "zseal" in GRAPHS
    assert "zseal/engine/embedded" in GRAPHS
    assert "linux" in GRAPHS["zseal"]["engine"], "engine imports linux"

"""No package, directory or module grows beyond what one can get to know."""

from __future__ import annotations

from collections import Counter

from tests.unit.architecture.source import SOURCE, modules

LARGEST_SHARE = 18
"""Percent of all lines of src/zseal that one package may have."""
MODULES_PER_DIRECTORY = 25
LINES_PER_MODULE = 500


def test_no_package_has_more_than_its_share_of_the_lines() -> None:
    lines: Counter[str] = Counter()
    for module in modules().values():
        lines[module.package] += module.lines
    package, most = lines.most_common(1)[0]
    share = 100 * most / lines.total()
    assert share <= LARGEST_SHARE, f"{package} has {share:.1f} % of the lines, at most {LARGEST_SHARE} %: split it"


def test_no_directory_has_more_modules_than_one_can_survey() -> None:
    counts = Counter(module.path.parent for module in modules().values())
    full = [f"{path.relative_to(SOURCE)}: {count}" for path, count in counts.items() if count > MODULES_PER_DIRECTORY]
    assert not full, f"at most {MODULES_PER_DIRECTORY} modules in a directory, group them: {', '.join(full)}"


def test_no_module_is_longer_than_one_reads() -> None:
    long = [f"{module.name}: {module.lines}" for module in modules().values() if module.lines > LINES_PER_MODULE]
    assert not long, f"at most {LINES_PER_MODULE} lines in a module, split it: {', '.join(long)}"

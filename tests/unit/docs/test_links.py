"""Documentation that can't rot silently: links lead somewhere, and the README names every command."""

import re
from pathlib import Path

import pytest

from tests.paths import REPOSITORY
from zseal.cli.main import COMMANDS

PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def anchors(page: Path) -> set[str]:
    """Return what a link into ``page`` may name: its headings as forges spell them, and explicit anchors."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    spelled = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return spelled | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), f"{target} in {page}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{target} in {page}"


def test_the_sources_name_no_page_that_is_absent() -> None:
    sources = [path for folder in ("src", "benchmarks", "native", "tools") for path in (REPOSITORY / folder).rglob("*")]
    named = {
        (page, str(path.relative_to(REPOSITORY)))
        for path in sources
        if path.suffix in {".py", ".c", ".S", ""} and path.is_file()
        for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text(errors="replace"))
    }
    assert {item for item in named if not (REPOSITORY / item[0]).exists()} == set()


def test_the_readme_names_every_command() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    assert [name for name in COMMANDS if f"zseal {name}" not in readme] == []

"""Write the rule pages of the documentation: ``python -m zseal.domain.rulepages docs/domains/rules``."""

from __future__ import annotations

import sys
from pathlib import Path

from zseal.domain.explain import rule_index, rule_page
from zseal.domain.rules import RULES


def pages() -> dict[str, str]:
    """Every page by its file name."""
    return {"README.md": rule_index(RULES.values())} | {f"{rule.id}.md": rule_page(rule) for rule in RULES.values()}


def write_pages(folder: Path) -> None:
    """Write all pages into ``folder`` and remove those of rules that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for old in folder.glob("PV*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/domains/rules"))

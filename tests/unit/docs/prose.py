"""What people read here: the prose of the pages, and the comments, docstrings and texts of the sources."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

# Names and code, which follow other rules: `code`, ``code``, :class:`Name`, <https://…>, link targets and HTML anchors.
CODE = re.compile(r":\w+:`[^`]+`|``.+?``|`[^`]+`|\]\([^)]*\)|<[^>\s]+>|https?://\S+")


def without_code(text: str) -> str:
    """Return ``text`` on one line, with a placeholder for each piece of code."""
    return " ".join(CODE.sub("…", " ".join(text.split())).split())


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of everything in ``path`` that is written for people."""
    found = _page(path.read_text()) if path.suffix == ".md" else _source(path.read_text())
    for line, text in found:
        if text := without_code(text):
            yield line, text


def _page(text: str) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs, list items, table cells and headings of a page; examples and output stay out."""
    blank = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    start, paragraph = 1, ""
    for number, line in enumerate([*blank.splitlines(), ""], 1):
        begins = re.match(r"\s*([-*#|]|\d+\.|$)", line)
        if begins and paragraph:
            yield start, paragraph
            paragraph = ""
        if line.startswith("|"):
            yield from ((number, cell) for cell in re.split(r"(?<!\\)\|", line) if cell.strip())
        elif line.strip():
            start = start if paragraph else number
            paragraph = f"{paragraph} {line.strip().lstrip('-*# ')}"


def _source(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments (those on successive lines as one) and the strings of a Python source."""
    comments: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, comment = token.start[0], token.string.lstrip("#: ")
        if comments and token.start[1] == token.line.index("#") and not token.line[: token.start[1]].strip():
            first, before = comments[-1]
            if first + before.count("\n") + 1 == line:
                comments[-1] = (first, f"{before}\n{comment}")
                continue
        comments.append((line, comment))
    yield from comments
    yield from _strings(ast.parse(text))


def _strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the strings below ``node``; formatted ones are whole, with a placeholder for each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        for number, paragraph in enumerate(node.value.split("\n\n")):
            yield node.lineno + number * bool(number), paragraph
    elif isinstance(node, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        yield node.lineno, "".join(parts)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _strings(part.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)

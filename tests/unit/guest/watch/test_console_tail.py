"""The end of a console, as text."""

from __future__ import annotations

import pytest

from zseal.guest.watch.console_tail import LIMIT, ConsoleTail


def shown(text: str | bytes, count: int | None = None) -> list[str]:
    tail = ConsoleTail()
    tail.feed(text if isinstance(text, bytes) else text.encode())
    return tail.lines(count)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("one\r\ntwo\r\n", ["one", "two"]),
        ("one\n\nunfinished", ["one", "", "unfinished"]),
        ("10%\r20%\r100%\n", ["100%"]),
        ("abcdef\rxy\n", ["xycdef"]),
        ("abcdef\rxy\x1b[K\n", ["xy"]),
        ("typo\b\bed\n", ["tyed"]),
        ("a\tb\n", ["a       b"]),
        ("\x1b[31mred\x1b[0m \x1b[1;32mok\x1b[m\n", ["red ok"]),
        ("\x1b]0;title\x07text \x1b]2;other\x1b\\end\n", ["text end"]),
        ("before\n\x1b[2J\x1b[Hafter\n", ["after"]),
        ("before\n\x1bcafter\n", ["after"]),
        ("bell\x07 null\x00 del\x7f\n", ["bell null del"]),
        (b"broken \xff utf-8\n", ["broken \N{REPLACEMENT CHARACTER} utf-8"]),
        ("\x1b[", [""]),
        ("gr\u00fc\u00dfe\n", ["gr\u00fc\u00dfe"]),
    ],
)
def test_lines_are_what_a_terminal_shows(text: str | bytes, lines: list[str]) -> None:
    assert shown(text) == lines


def test_nothing_that_steers_a_terminal_is_left() -> None:
    everything = bytes(range(256)) * 20 + b"\x1b[999999999;5H\x1bP1$r\x1b\\\x9b2J"
    assert all(character.isprintable() for line in shown(everything) for character in line)


def test_only_the_end_is_kept() -> None:
    tail = ConsoleTail()
    for number in range(10_000):
        tail.feed(f"this is line number {number:05}\r\n".encode())
    lines = tail.lines(None)
    assert lines[-1] == "this is line number 09999"
    assert lines[0] == f"this is line number {10_000 - len(lines):05}"  # whole: what was cut is left out
    assert LIMIT // 30 < len(lines) < LIMIT // 25
    assert tail.lines(2) == ["this is line number 09998", "this is line number 09999"]
    assert tail.lines(0) == []


def test_endless_line_is_bounded() -> None:
    assert len(shown("x" * 60_000)[0]) == 1000
    assert len(shown("\t" * 60_000 + "x\n")[0]) <= 1008

"""The help of every command: what users read first, on a terminal of 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from zseal.cli.help import improve_help
from zseal.cli.main import COMMANDS, PLAIN_COMMANDS, build_app, main

Path = tuple[str, ...]


def tree(command: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield ``command`` and all below it; typer does not export their types."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from tree(child, (*path, name))


def every_command() -> Iterator[tuple[Path, Any]]:
    yield (), typer.main.get_command(build_app(None))
    for name in sorted(COMMANDS.keys() - PLAIN_COMMANDS):  # those have test_plain.py
        yield from tree(typer.main.get_command(build_app(name)).commands[name], (name,))  # type: ignore[attr-defined]


TREE = dict(every_command())


@pytest.fixture
def helps(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Path, str]]:
    """What each command prints with -h."""
    monkeypatch.setenv("COLUMNS", "80")
    found = {}
    for path in TREE:
        with pytest.raises(SystemExit) as ended:
            main([*path, "-h"])
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, ""), path
        found[path] = out
    yield found


def test_every_command_takes_h_and_help(helps: dict[Path, str]) -> None:
    assert len(helps) > 45
    for path, text in helps.items():
        assert text.startswith(" ".join(("Usage: zseal", *path)).strip()), path
        assert re.search(r"^  -h, --help +Show this message and exit\.$", text, re.MULTILINE), path


def test_no_summary_of_a_command_is_cut_off(helps: dict[Path, str]) -> None:
    for path, text in helps.items():
        _, _, commands = text.partition("\nCommands:\n")
        rows = [line for line in commands.partition("\n\n")[0].splitlines() if line]
        assert all(re.fullmatch(r"  [\w-]+ +\S.*\.", row) for row in rows), path
        assert not any(row.endswith("...") for row in rows), f"{path}: shorten the first sentence of {rows}"


def test_no_line_is_wider_than_the_terminal(helps: dict[Path, str]) -> None:
    for path, text in helps.items():
        assert all(len(line) <= 80 for line in text.splitlines()), path


def test_help_shows_no_python_types(helps: dict[Path, str]) -> None:
    for path, text in helps.items():
        assert not re.search(r"<(?:str|int|float|bool|path|Path|text|list|tuple)\b(?!\|)", text), path
        assert not re.search(r"<\w+ range>|\bTrue\b|\bFalse\b|\bNone\b", text), path


def test_usage_names_arguments_as_manuals_do(helps: dict[Path, str]) -> None:
    for path, text in helps.items():
        usage = text.partition("\n\n")[0].replace("COMMAND [ARGS]...", "")
        words = usage.split()[2 + len(path) :]
        argument = re.compile(r"\[OPTIONS\]|[A-Z]+(?:\|[a-z]+)?(?:\.\.\.)?|\[[A-Z]+(?:\.\.\.)?\]")
        assert all(argument.fullmatch(word) for word in words), f"{path}: {usage}"


def test_every_option_says_what_it_does() -> None:
    for path, command in TREE.items():
        for parameter in command.params:
            if getattr(parameter, "hidden", False):
                continue
            text = parameter.help or ""
            about = f"{' '.join(path)} {parameter.opts}: {text!r}"
            assert len(text.split()) > 1, about
            assert text.endswith((".", "…", ")")), about
            assert not re.match(r"The default|How to print", text), about


def test_every_option_with_a_value_names_it() -> None:
    """Choices show what they can be, all others have a metavar."""
    for path, command in TREE.items():
        for parameter in command.params:
            flag = getattr(parameter, "is_flag", False) or getattr(parameter, "count", False)
            if not flag and not parameter.type_descriptor.is_choice:
                assert parameter.metavar, f"{' '.join(path)} {parameter.opts}"


def test_improving_help_twice_changes_nothing() -> None:
    command = typer.main.get_command(build_app("guest"))
    improve_help(command)
    improve_help(command)
    assert command.context_settings["help_option_names"] == ["-h", "--help"]

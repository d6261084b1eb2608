"""Commands that Python's own parser reads keep the promises of all others: help, one line for wrong usage."""

import argparse
import importlib
from collections.abc import Iterator

import pytest

from zseal.cli.main import COMMANDS, PLAIN_COMMANDS, main
from zseal.cli.plain import PlainProgram


def parsers() -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    for name in sorted(PLAIN_COMMANDS):
        program = importlib.import_module(COMMANDS[name][0]).program()
        assert isinstance(program, PlainProgram)
        parser = program.parser(f"zseal {name}")
        (group,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        for each, child in group.choices.items():
            yield (name, each), child


ALL = dict(parsers())


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_says_what_it_does(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-h", "--help"):
        with pytest.raises(SystemExit) as ended:
            main([*path, option])
        assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"Usage: zseal {' '.join(path)}")
    assert ALL[path].description
    assert [action.dest for action in ALL[path]._actions if not action.help] == []


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_an_unknown_option_is_one_line(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*path, "--no-such-option"])
    assert ended.value.code == (1 if path[0] == "attest" else 2)
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", sorted(PLAIN_COMMANDS))
def test_a_group_without_a_command_is_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name])
    assert ended.value.code in (1, 2)
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_logs_where_it_is_asked_to(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*path, "-v", "--log-level", "debug", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "--verbose" in out
    assert "--log-level" in out


def test_an_unknown_level_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["secret", "list", "--log-level", "all"])
    assert ended.value.code == 2
    assert "argument --log-level: " in capsys.readouterr().err

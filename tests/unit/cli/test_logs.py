"""The log of every command: silent unless asked for, on stderr, and gone when the command is over."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import typer

from zseal.cli.main import COMMANDS, PLAIN_COMMANDS, build_app, main
from zseal.logs import logger

LEVELS = ("debug", "info", "warning", "error")


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return (ended.value.code if isinstance(ended.value.code, int) else 0), out, err


def levels(err: str) -> set[str]:
    """Return the levels of what was logged."""
    return {level for level in LEVELS for line in err.splitlines() if f" ms {level.upper()} zseal." in line}


@pytest.fixture
def logging_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``zseal inspect`` log a line of each level."""

    def inspect(path: Path) -> None:
        for level in LEVELS:
            logger("zseal.inspection").log(logging.getLevelName(level.upper()), "%s of\n%s", level, path)
        raise SystemExit(0)

    monkeypatch.setattr("zseal.inspection.inspect", inspect)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], set()),
        (["-v"], {"info", "warning", "error"}),
        (["--verbose"], {"info", "warning", "error"}),
        (["-vv"], {"debug", "info", "warning", "error"}),
        (["-v", "-v", "-v"], {"debug", "info", "warning", "error"}),
        (["--log-level", "debug"], {"debug", "info", "warning", "error"}),
        (["--log-level=warning"], {"warning", "error"}),
        (["--log-level", "error", "-vv"], {"error"}),
    ],
)
@pytest.mark.usefixtures("logging_command")
def test_the_options_mean_the_same_before_and_after_the_command(
    capsys: pytest.CaptureFixture[str], options: list[str], expected: set[str]
) -> None:
    for arguments in (["inspect", "x", *options], ["inspect", *options, "x"], [*options, "inspect", "x"]):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (0, "")
        assert levels(err) == expected
        assert err.count("\n") == len(expected), "a message is one line, whatever is in it"
    assert "info of\\nx" in err or "info" not in expected


@pytest.mark.usefixtures("logging_command")
def test_each_verbose_counts_wherever_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "debug" in levels(run(capsys, "-v", "inspect", "-v", "x")[2])


@pytest.mark.usefixtures("logging_command")
def test_nothing_of_it_stays(capsys: pytest.CaptureFixture[str]) -> None:
    before = (logging.getLogger("zseal").handlers[:], logging.getLogger("zseal").level)
    assert levels(run(capsys, "inspect", "-vv", "x")[2])
    assert (logging.getLogger("zseal").handlers, logging.getLogger("zseal").level) == before
    assert levels(run(capsys, "inspect", "x")[2]) == set()


def test_an_unknown_level_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--log-level", "all", "inspect", "x"], ["inspect", "--log-level", "all", "x"]):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: invalid value for '--log-level': 'all' is not one of 'debug', 'info', ")


def paths(command: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    children = getattr(command, "commands", {})
    return [path, *(found for name, child in children.items() for found in paths(child, (*path, name)))]


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - PLAIN_COMMANDS))
def test_every_command_and_every_group_takes_them(capsys: pytest.CaptureFixture[str], name: str) -> None:
    group = typer.main.get_command(build_app(name)).commands[name]  # type: ignore[attr-defined]  # not exported
    for path in paths(group, (name,)):
        code, out, err = run(capsys, *path, "-v", "--log-level", "debug", "--help")
        assert (code, err) == (0, ""), path
        assert "--verbose" in out, path
        assert "--log-level" in out, path


def test_they_may_come_before_the_commands_that_need_nothing_but_python(capsys: pytest.CaptureFixture[str]) -> None:
    for name in sorted(PLAIN_COMMANDS):
        for options in (["-v"], ["-vv", "--log-level", "debug"], ["--log-level=info"]):
            code, out, err = run(capsys, *options, name, "--help")
            assert (code, err) == (0, "")
            assert out.startswith(f"Usage: zseal {name} ")
        assert run(capsys, "--version", name)[1].startswith("zseal ")


def test_what_a_command_did_with_verbose_stays(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    capture = Path(__file__).parents[2] / "vectors" / "hosts" / "x86"
    short, long = (run(capsys, "host", "check", "--root", capture, *options)[1] for options in ([], ["-v"]))
    assert len(long) > len(short)
    code, _, err = run(capsys, "image", "info", tmp_path / "none", "-v")
    assert code == 1
    assert "caused by: " in err


def test_a_program_that_wants_the_log_configures_it_itself(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    from zseal import Machine, build_image, testguest, verify_image

    machine = Machine.create(tmp_path / "box")
    keys = [machine.keys.host.public_key()]
    build_image(tmp_path / "silent", kernel=testguest.kernel(), host_keys=keys)
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, logger="zseal"):
        build_image(tmp_path / "logged", kernel=testguest.kernel(), host_keys=keys)
        verify_image(tmp_path / "logged", machine.keys)
    assert {record.name for record in caplog.records} == {"zseal.image.build", "zseal.image.verify"}


def test_the_library_prints_nothing_by_itself() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("zseal").handlers)

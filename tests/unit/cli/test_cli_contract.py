"""What every command keeps: help without heavy modules, exit code 2 for wrong usage, no traceback."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.paths import VECTORS
from zseal.cli.main import COMMANDS, PLAIN_COMMANDS, build_app, main

# each takes longer to import than the whole of a command's help may take
HEAVY = ("cryptography", "hypothesis", "libvirt", "lxml", "numpy", "PIL", "unicorn")


BY_TYPER = [name for name in COMMANDS if name not in PLAIN_COMMANDS]


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    # typer carries a command library of its own, whose types it does not export
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield path, command


def group(name: str) -> Any:
    return typer.main.get_command(build_app(name)).commands[name]  # type: ignore[attr-defined]  # as above


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process and return exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


@pytest.mark.parametrize("name", BY_TYPER)
def test_every_group_explains_itself_in_one_line_and_every_command_has_help(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for path, command in leaves(group(name), (name,)):
        code, out, err = run(capsys, *path, "--help")
        assert (code, err) == (0, ""), path
        assert out.startswith("Usage: zseal " + " ".join(path)), path
        assert command.help, path
        assert all(option.help or option.hidden for option in command.params if option.opts[0].startswith("-")), path


@pytest.mark.parametrize("name", BY_TYPER)
def test_an_unknown_option_is_wrong_usage(capsys: pytest.CaptureFixture[str], name: str) -> None:
    for path, _ in leaves(group(name), (name,)):
        code, out, err = run(capsys, *path, "--no-such-option")
        assert (code, out) == (2, ""), path
        assert err == f"error: no such option: --no-such-option; see zseal {' '.join(path)} --help\n", path


@pytest.mark.parametrize("name", BY_TYPER)
def test_a_required_argument_that_is_missing_is_wrong_usage(capsys: pytest.CaptureFixture[str], name: str) -> None:
    for path, command in leaves(group(name), (name,)):
        if any(parameter.required for parameter in command.params):
            code, _, err = run(capsys, *path)
            assert code == 2, path
            assert err.startswith(("error: ", "Usage: ")), path


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["--frobnicate"], ["host", "frobnicate"], ["domain", "frobnicate"]]
)
def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: no such ")
    assert err.count("\n") == 1
    assert "frobnicate" in err


def test_a_choice_that_does_not_exist_names_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "run", "x", "--machine", "m", "--io-policy", "none")
    assert code == 2
    assert err == (
        "error: invalid value for '--io-policy': 'none' is not one of 'enforce', 'audit', 'off'; see zseal run --help\n"
    )


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("zseal ")


def test_no_help_imports_a_heavy_module() -> None:
    program = f"""
import json, sys
from zseal.cli.main import COMMANDS, main
guilty = {{}}
for name in ["", *COMMANDS]:
    try:
        main([name, "--help"] if name else ["--help"])
    except SystemExit:
        pass
    found = sorted(module for module in {HEAVY!r} if module in sys.modules)
    for module in found:
        guilty.setdefault(module, name or "zseal itself")
print(json.dumps(guilty), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == {}


def test_an_input_that_is_missing_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for arguments in (
        ["host", "check", "--root", missing],
        ["host", "info", "--root", missing],
        ["inspect", missing],
        ["image", "info", missing],
        ["image", "verify", missing, "--machine", missing],
        ["image", "test", "-k", missing, missing],
        ["hostkey", "show", missing],
        ["hostkey", "verify", "-k", missing, "-C", missing],
        ["machine", "show", missing],
        ["domain", "fix", missing],
        ["run", missing, "--machine", missing],
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (1, ""), arguments
        assert err.startswith("error: "), arguments
        assert err.count("\n") == 1, arguments
        assert missing in err, arguments


@pytest.mark.parametrize("name", ["x" * 300, "file/below"])
def test_a_path_that_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    path = f"{tmp_path}/{name}"
    for arguments in (
        ["inspect", path],
        ["image", "info", path],
        ["image", "verify", str(tmp_path / "file"), "--machine", path],
        ["image", "extract-header", str(tmp_path / "file"), "-o", path],
        ["machine", "show", path],
        ["machine", "create", path],
        ["hostkey", "verify", "-k", path, "--bundle", path],
        ["hostkey", "bundle", "create", path, "-C", path],
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1), arguments
        assert err.startswith("error: "), arguments


def steps() -> list[str]:
    """Every command line that zseal inspect proposes for the files among the test vectors."""
    from zseal.inspection import inspect

    files = [*VECTORS.glob("se-image/*"), *VECTORS.glob("domains/*-minimal.xml"), *VECTORS.glob("hosts/z1*-ready")]
    return sorted({step for file in files for step in inspect(file).next_steps})


def test_the_command_lines_that_inspect_proposes_are_possible() -> None:
    proposed = steps()
    assert len(proposed) > 10
    for step in proposed:
        words = shlex.split(step)
        if words[0] != "zseal":
            continue
        command = group(words[1])
        rest = words[2:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= known, step
        given = {word.partition("=")[0] for word in rest}
        required = [p for p in command.params if p.required and p.opts[0].startswith("-")]
        assert all(given & set(parameter.opts) for parameter in required), step

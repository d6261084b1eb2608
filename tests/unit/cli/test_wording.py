"""Errors of the library speak Python, and the commands say the same in options and commands."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import zseal
from zseal import Bundle, Controls, Guest, Machine, TrustMaterial, ZsealError, load_host_key_documents
from zseal.cli.main import COMMANDS as GROUPS
from zseal.cli.main import build_app, main
from zseal.cli.wording import COMMANDS, OPTIONS, for_command_line

SOURCES = Path(zseal.__file__).parent
# Texts that describe the commands themselves: what they print, what their exit codes and rules mean.
ABOUT_COMMANDS = {
    "domain/explain.py",
    "domain/report/text.py",
    "domain/rules/guest.py",
    "domain/rules/interface.py",
    "explanations/__init__.py",
    "explanations/families/exits.py",
    "formats/uv_codes.py",
}
# What other programs print, and what to do about it in whatever program it was.
OTHER_PROGRAMS = "messages/"
COMMAND_LINE = re.compile(r"\b(?:zseal [a-z]+|virsh|journalctl|pip)\b")


def leaves(command: Any) -> Iterator[Any]:
    if hasattr(command, "commands"):
        for child in command.commands.values():
            yield from leaves(child)
    else:
        yield command


def all_options() -> set[str]:
    found: set[str] = set()
    for name in GROUPS:
        group = typer.main.get_command(build_app(name)).commands[name]  # type: ignore[attr-defined]  # not exported
        for command in leaves(group):
            for parameter in command.params:
                found |= {option for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("--")}
    return found


ZSEAL_OPTIONS = all_options()


def library_texts() -> Iterator[tuple[str, int, str]]:
    """Yield file, line and value of each string in the library that is not a docstring."""
    for path in sorted(SOURCES.rglob("*.py")):
        name = str(path.relative_to(SOURCES))
        if name.startswith(("cli/", OTHER_PROGRAMS)):
            continue
        tree = ast.parse(path.read_text())
        below = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                whole = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                yield name, node.lineno, "".join(whole)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in below | parts:
                yield name, node.lineno, node.value


def options_in(text: str) -> list[str]:
    """Return the options of zseal in ``text``, except those of a whole command line and an option by itself."""
    before = COMMAND_LINE.split(text)[0]
    return [option for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", before) if option in ZSEAL_OPTIONS - {text}]


def test_no_text_of_the_library_names_an_option() -> None:
    found = [(file, line, text) for file, line, text in library_texts() if options_in(text)]
    assert [each for each in found if each[0] not in ABOUT_COMMANDS] == []
    assert {file for file, _, _ in found} == ABOUT_COMMANDS


def test_an_option_is_found_out() -> None:
    assert options_in("choose another name or give --overwrite") == ["--overwrite"]
    assert options_in("--enable-dump needs --cck") == ["--enable-dump", "--cck"]
    assert not options_in("--name")
    assert not options_in("zseal image create --enable-dump builds one")


def test_every_name_in_an_error_has_an_option_or_a_command() -> None:
    """Backquotes around anything else are for what to type, and stay."""
    for file, line, text in library_texts():
        for quoted in re.findall(r"`([^`]+)`", text):
            if " " not in quoted and file not in ABOUT_COMMANDS:
                assert for_command_line(f"`{quoted}`") != f"`{quoted}`", f"{file}:{line}: {quoted}"


def test_the_options_exist() -> None:
    assert {*OPTIONS.values()} - ZSEAL_OPTIONS == set()
    for spelled in COMMANDS.values():
        words = spelled.split()
        assert words[0] in ZSEAL_OPTIONS or (words[0] == "zseal" and words[1] in GROUPS), spelled


def parameters() -> set[str]:
    """Return the names of all parameters and fields in the library."""
    found: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        if path.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
    return found


def test_the_names_exist_in_python() -> None:
    assert {name.partition("=")[0] for name in OPTIONS} - parameters() == set()
    faces = [importlib.import_module(f"zseal.{name}") for name in ("guest", "hostkeys", "domain", "readiness")]
    for name in COMMANDS:
        owner, _, method = name.removesuffix("()").partition(".")
        found = next((getattr(face, owner) for face in faces if hasattr(face, owner)), None)
        assert found is not None, name
        assert not method or callable(getattr(found, method)), name


def raised(function: Callable[[], object]) -> str:
    with pytest.raises(ZsealError) as caught:
        function()
    return str(caught.value)


def test_errors_speak_python_and_the_commands_say_the_same(tmp_path: Path) -> None:
    machine = Machine.create(tmp_path / "box")
    documents = load_host_key_documents([tmp_path / "box" / "host-key.crt"])
    trust = TrustMaterial.load(bundle=tmp_path / "box")
    for function, python, command_line in (
        (
            lambda: Controls(dump=True).check(cck=False, image_key=False),
            "`dump` needs `cck` or `cck_update`",
            "--enable-dump needs --cck or --enable-cck-update",
        ),
        (
            lambda: Controls(image_encryption=False).check(cck=False, image_key=True),
            "`image_key` excludes `image_encryption=False`",
            "--image-key excludes --disable-image-encryption",
        ),
        (
            lambda: Bundle.load(tmp_path),
            "create one with: `Bundle.create()`",
            "create one with: zseal hostkey bundle create DIR --cert FILE",
        ),
        (
            lambda: Machine.load(tmp_path),
            "create one with: `Machine.create()`",
            "create one with: zseal machine create DIR",
        ),
        (
            lambda: trust.verify(documents, offline=True),
            "if you want that, name its root with `root_ca`",
            "if you want that, name its root with --root-ca",
        ),
        (
            lambda: Guest(None, machine=machine, qemu_arguments=["-smp", "4"]),
            "zseal sets this itself; use `cpus`",
            "zseal sets this itself; use --cpus",
        ),
        (
            lambda: Guest(None, machine=machine, qemu_arguments=["-device", "e1000-pci"]),
            'or choose `io_policy="off"`',
            "or choose --io-policy off",
        ),
        (
            lambda: Guest(None, machine=machine),
            "give an image, or a bootable disk with `disks`",
            "give an image, or a bootable disk with --disk",
        ),
    ):
        text = raised(function)
        assert python in text
        assert not options_in(text)
        assert command_line in for_command_line(text)


def test_a_command_speaks_in_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(SystemExit) as ended:
        main(["domain", "new", "--name", "guest", "--image", "x.img", "-o", str(tmp_path / "there")])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/there: the output exists; choose another name or give --overwrite\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("give `overwrite=True`", "give --overwrite"),
        ("drop `overwrite`", "drop --overwrite"),
        ('use `engine="qemu"`', "use --engine qemu"),
        ("use `machine_type=s390-ccw-virtio-7.2`", "use --machine-type s390-ccw-virtio-7.2"),
        ("`pip install zseal[libvirt]`", "`pip install zseal[libvirt]`"),
        ("a file `of this name`", "a file `of this name`"),
        ("`unknown=1` and `name", "`unknown=1` and `name"),
        ("`fix_domain()` repairs it", "zseal domain fix repairs it"),
    ],
)
def test_wording(text: str, expected: str) -> None:
    assert for_command_line(text) == expected

"""The guide "From genprotimg to zseal": its commands print what it shows, its Python examples run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.paths import DOCS
from zseal.cli.main import main
from zseal.testguest import kernel

GUIDE = (DOCS / "image.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def without_what_varies(text: str) -> str:
    """Leave out hashes, and the sizes and addresses that follow from the size of bootloaders and test guest."""
    text = re.sub(r"\b[0-9a-f]{16,}\b", "<hex>", text)
    text = re.sub(r"0x[0-9a-f]{5,}\b", "<address>", text)
    return re.sub(r" +\d+ (bytes|pages)|for \d+ pages", " <size>", text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the guide's reader has: a kernel, a ramdisk, parmfiles, a key and a machine."""
    monkeypatch.chdir(tmp_path)
    Path("vmlinuz").write_bytes(kernel())
    Path("initrd.img").write_bytes(b"070701" * 5000)
    Path("parmfile").write_bytes(b"root=/dev/vda1 quiet")
    Path("long-parmfile").write_bytes(b"x" * 4096)
    Path("cck").write_bytes(bytes(range(32)))
    with pytest.raises(SystemExit):
        main(["machine", "create", "my-z"])
    return tmp_path


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0x18000] ^= 1
    Path("damaged.img").write_bytes(data)


def test_commands_print_what_the_guide_shows(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shown = "".join(blocks("console"))
    printed = ""
    commands = re.findall(r"^\$ zseal (.*)$", shown, re.MULTILINE)
    assert len(commands) > 8
    for command in commands:
        if "damaged.img" in command:
            damage(folder / "sealed.img")
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(shlex.split(command))
        out, err = capfd.readouterr()
        printed += f"$ zseal {command}\n{out}{err}"
        if caught.value.code:
            printed += f"[exit code {caught.value.code}]\n"
    assert without_what_varies(printed).splitlines() == without_what_varies(shown).splitlines()


def test_python_examples_run(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(shlex.split("image create -i vmlinuz -p parmfile -k my-z/host-key.crt --no-verify -o sealed.img"))
    damage(folder / "sealed.img")
    capfd.readouterr()
    names: dict[str, object] = {}
    examples = blocks("python")
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "image.md", "exec"), names)
    out = capfd.readouterr().out
    assert "rrc 0x001b" in out and "plaintext control flags" in out and "parts/kernel" in out


def test_option_table_names_every_option(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["image", "create", "--help"])
    options = set(re.findall(r"--[a-z][a-z-]+", capfd.readouterr().out))
    table = GUIDE[GUIDE.index("### Options") : GUIDE.index("### Differences")]
    missing = {
        option
        for option in options
        if option not in table
        and option.replace("--disable", "--enable") not in table
        and option.replace("--enable", "--disable") not in table
    }
    assert missing <= {"--verbose", "--log-level", "--quiet", "--help"}

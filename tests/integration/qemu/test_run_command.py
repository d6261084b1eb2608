"""``zseal run`` as a user starts it: exit codes, outputs, signals, and what is left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from zseal.hostkeys.machine import Machine

pytestmark = pytest.mark.qemu

Seal = Callable[..., Path]


def command(machine: Machine, image: Path, *options: str) -> list[str]:
    base = [sys.executable, "-m", "zseal", "run", str(image), "--machine", str(machine.directory)]
    return [*base, "--memory", "64M", *options]


def run(machine: Machine, image: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(machine, image, *options), capture_output=True, text=True, timeout=120, check=False)


class Running:
    """A ``zseal run`` in the background, once its guest has written ``text``."""

    def __init__(self, arguments: list[str], text: bytes = b"waiting") -> None:
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self.output = b""
        limit = time.monotonic() + 60
        while text not in self.output:
            assert select.select([self.process.stdout], [], [], max(0.0, limit - time.monotonic()))[0], "no output"
            data = os.read(self.process.stdout.fileno(), 4096)
            assert data, self.process.communicate()[1]
            self.output += data
        self.qemu = next(pid for pid in processes() if parent(pid) == self.process.pid)

    def signal(self, number: int) -> tuple[int, str]:
        """Send the signal; return exit code and messages, once zseal and QEMU are gone."""
        self.process.send_signal(number)
        messages = self.process.communicate(timeout=30)[1].decode()
        limit = time.monotonic() + 10
        while parent(self.qemu) is not None:
            assert time.monotonic() < limit, "QEMU is still there"
            time.sleep(0.01)
        return self.process.returncode, messages


def processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def parent(pid: int) -> int | None:
    """The parent of a process that runs; None for one that is gone or only waits to be collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[1])


def test_the_console_goes_to_stdout_and_the_end_to_stderr(machine: Machine, seal: Seal, tmp_path: Path) -> None:
    report, dump = tmp_path / "report.json", tmp_path / "dump"
    done = run(machine, seal("say=hi marker=not-to-be-seen share=1"), "--report", str(report), "--host-dump", str(dump))
    assert done.returncode == 0
    assert done.stdout.startswith("zseal-test-guest: hi\n")
    assert done.stderr == "the guest powered off\n"
    assert json.loads(report.read_text())["result"]["outcome"] == "poweroff"
    data = dump.read_bytes()
    assert len(data) == 64 << 20
    assert b"not-to-be-seen" not in data
    assert b"zseal pool page 00000000 shared" in data
    assert dump.stat().st_mode & 0o777 == 0o600


def test_exit_codes_tell_how_a_guest_ended(machine: Machine, seal: Seal, tmp_path: Path) -> None:
    panic = run(machine, seal("panic", "panic"))
    assert (panic.returncode, panic.stderr) == (3, "error: the guest stopped for good: disabled wait at 0xdead\n")
    other = Machine.create(tmp_path / "other")
    refused = run(machine, seal("hello", "foreign", owner=other))
    assert refused.returncode == 4
    assert refused.stderr.startswith("error: SET_SEC_CONF_PARAMS answered rc 0x0108 rrc 0x0005: ")
    late = run(machine, seal("loop", "loop"), "--timeout", "2")
    assert (late.returncode, late.stderr) == (5, "error: the guest did not end within 2 s\n")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--memory", "5x"], 2, "'5x' is no memory size"),
        (["--disk", "/no/such/disk"], 1, "cannot use the disk: No such file or directory"),
        (["--disk", "/dev/null"], 1, "a disk is a file or a block device"),
        (["--disk", "/etc/passwd,colour=red"], 2, "the disk has no option 'colour=red'"),
        (["--", "-nonsense"], 1, "QEMU did not start: -nonsense: invalid option"),
        (["--qemu", "/no/such/qemu"], 1, "/no/such/qemu is needed to run guests"),
    ],
)
def test_wrong_options_are_one_line(machine: Machine, seal: Seal, options: list[str], code: int, message: str) -> None:
    done = run(machine, seal("hello"), *options)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_outputs_that_exist_are_kept_unless_told_otherwise(machine: Machine, seal: Seal, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text("mine")
    image = seal("hello")
    done = run(machine, image, "--report", str(report))
    assert done.returncode == 1
    assert done.stdout == ""
    assert report.read_text() == "mine"
    assert run(machine, image, "--report", str(report), "--overwrite").returncode == 0
    assert json.loads(report.read_text())["format"] == 1


@pytest.mark.parametrize("name", ["no/report", "file/report", "folder"])
def test_an_output_that_can_not_be_written_is_refused_beforehand(
    machine: Machine, seal: Seal, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path, image = tmp_path / name, seal("hello")
    for option in ("--report", "--html", "--host-dump"):
        done = run(machine, image, option, str(path), "--overwrite")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: {path}: ")
        assert done.stderr.count("\n") == 1


def test_one_file_is_not_for_two_outputs(machine: Machine, seal: Seal, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("a")
    image = seal("hello")
    for names in (("a", "a"), ("a", "link"), ("a", "../" + tmp_path.name + "/a")):
        report, html = (f"{tmp_path}/{name}" for name in names)
        done = run(machine, image, "--report", report, "--html", html, "--overwrite")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"error: {html}: --report and --html name the same file\n"


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [(signal.SIGINT, 130, "error: interrupted\n"), (signal.SIGTERM, 143, "error: terminated\n")],
)
def test_a_signal_ends_everything(
    machine: Machine, seal: Seal, tmp_path: Path, number: int, code: int, message: str
) -> None:
    report = tmp_path / "report.json"
    guest = Running(command(machine, seal("share=2 wait"), "--report", str(report)))
    assert guest.signal(number) == (code, message)
    assert json.loads(report.read_text())["ultravisor"]["pages"]["shared"] == 2


def test_a_guest_does_not_outlive_its_ultravisor(machine: Machine, seal: Seal) -> None:
    guest = Running(command(machine, seal("wait")))
    assert guest.signal(signal.SIGKILL)[0] == -signal.SIGKILL


def test_a_killed_qemu_has_an_exit_code_of_its_own(machine: Machine, seal: Seal) -> None:
    guest = Running(command(machine, seal("wait")))
    os.kill(guest.qemu, signal.SIGKILL)
    messages = guest.process.communicate(timeout=30)[1].decode()
    assert guest.process.returncode == 6
    assert messages == "error: the guest is lost: QEMU was killed by signal 9\n"


def test_a_reader_that_goes_away_ends_the_guest(machine: Machine, seal: Seal) -> None:
    guest = Running(command(machine, seal("hello nap=300 hello nap=300 hello loop")), b"hello")
    assert guest.process.stdout is not None
    assert guest.process.stderr is not None
    guest.process.stdout.close()
    guest.process.wait(timeout=30)
    assert guest.process.stderr.read() == (
        b"error: nobody reads the guest's console any longer, so the guest was ended\n"
    )
    guest.process.stderr.close()
    assert guest.process.returncode == 1
    assert parent(guest.qemu) is None


def test_the_line_mode_console_is_shown_when_asked_for(machine: Machine, seal: Seal) -> None:
    image = seal("hello")
    assert run(machine, image).stdout.count("hello") == 1
    assert run(machine, image, "--kernel-console").stdout.count("hello") >= 1

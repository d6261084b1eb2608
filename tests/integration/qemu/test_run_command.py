"""``zseal run`` as a user starts it: exit codes, outputs, signals, and what is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import PATIENCE, is_gone, wait_until
from zseal.guest.control.client import GuestControl
from zseal.guest.control.registry import Directory
from zseal.hostkeys.machine import Machine

pytestmark = pytest.mark.qemu

Seal = Callable[..., Path]


def command(machine: Machine, image: Path, *options: str) -> list[str]:
    base = [sys.executable, "-m", "zseal", "run", str(image), "--machine", str(machine.directory)]
    return [*base, "--memory", "64M", *options]


def run(machine: Machine, image: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(machine, image, *options), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


class Running:
    """A ``zseal run`` in the background, once there is ``text`` on ``stream``: its guest's or its own."""

    def __init__(self, arguments: list[str], text: bytes = b"waiting", stream: str = "stdout") -> None:
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        source = self.process.stdout if stream == "stdout" else self.process.stderr
        assert source is not None
        self.output = b""
        while text not in self.output:
            assert select.select([source], [], [], PATIENCE)[0], "no output"
            data = os.read(source.fileno(), 4096)
            assert data, self.process.communicate()[1]
            self.output += data
        self.qemu = next(pid for pid in processes() if parent(pid) == self.process.pid)

    def signal(self, number: int) -> tuple[int, str]:
        """Send the signal; return exit code and messages, once zseal and QEMU are gone."""
        self.process.send_signal(number)
        messages = self.process.communicate(timeout=PATIENCE)[1].decode()
        wait_until(lambda: is_gone(self.qemu))
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
        (["--memory", "5x"], 2, "invalid memory size '5x': use a value such as 512M or 2G"),
        (["--disk", "/no/such/disk"], 1, "cannot use the disk: No such file or directory"),
        (["--disk", "/dev/null"], 1, "a disk must be a file or a block device"),
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


@pytest.mark.parametrize("name", ["no/report", "file/report", "directory"])
def test_an_output_that_can_not_be_written_is_refused_beforehand(
    machine: Machine, seal: Seal, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
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


def test_an_output_that_fails_at_the_end_hides_neither_the_outcome_nor_the_other_outputs(
    machine: Machine, seal: Seal, tmp_path: Path
) -> None:
    folder, page = tmp_path / "directory", tmp_path / "page.html"
    for words, code in (("say=here wait", 130), ("say=here nap=2000 nap=300", 1), ("say=here nap=2000 panic", 3)):
        folder.mkdir()
        outputs = ("--report", str(folder / "report"), "--html", str(page), "--overwrite")
        guest = Running(command(machine, seal(words, f"image-{code}"), *outputs), b"here")
        folder.rmdir()
        if code == 130:
            guest.process.send_signal(signal.SIGINT)
        messages = guest.process.communicate(timeout=PATIENCE)[1].decode().splitlines()
        assert guest.process.returncode == code
        assert len(messages) == 2
        assert ("the guest" in messages[0]) == (code != 130)
        assert messages[1] == f"error: {folder / 'report'}: cannot create the output: No such file or directory"
        page.unlink()


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "terminated"),
        (signal.SIGHUP, "hung up"),
        (signal.SIGQUIT, "quit"),
    ],
)
def test_a_signal_ends_everything(machine: Machine, seal: Seal, tmp_path: Path, number: int, word: str) -> None:
    report, socket = tmp_path / "report.json", tmp_path / "console"
    options = ("--report", str(report), "--console", f"socket:{socket}", "--name", f"ended-by-{number}")
    guest = Running(command(machine, seal("share=2 wait"), *options), text=b"console\n", stream="stderr")
    with contextlib.closing(GuestControl(f"ended-by-{number}")) as control:
        wait_until(lambda: any("waiting" in line for line in control.console()))
    assert guest.signal(number) == (128 + number, f"error: {word}\n")
    written = json.loads(report.read_text())
    assert written["ultravisor"]["pages"]["shared"] == 2
    assert written["result"] | {"exit_code": 128 + number, "message": word} == written["result"]
    assert not socket.exists()
    with Directory() as directory:
        assert f"ended-by-{number}" not in directory.names()


@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.003, 0.003), (0.01, 0.0), (0.03, 0.1)])
@pytest.mark.parametrize(("first", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_further_signals_do_not_disturb_the_end(
    machine: Machine, seal: Seal, tmp_path: Path, first: int, word: str, gaps: tuple[float, ...]
) -> None:
    report = tmp_path / "report.json"
    guest = Running(command(machine, seal("wait"), "--report", str(report)))
    guest.process.send_signal(first)
    for gap, number in zip(gaps, (first, signal.SIGINT), strict=True):
        time.sleep(gap)
        guest.process.send_signal(number)
    messages = guest.process.communicate(timeout=PATIENCE)[1].decode()
    code = guest.process.returncode
    if gaps[0]:
        assert (code, messages) == (128 + first, f"error: {word}\n")
    else:  # signals that come at once have no order
        assert (code, messages) in [(130, "error: interrupted\n"), (143, "error: terminated\n")]
    assert json.loads(report.read_text())["result"]["exit_code"] == code


def test_a_run_survives_its_terminal_when_told_so(machine: Machine, seal: Seal) -> None:
    guest = Running(["nohup", *command(machine, seal("wait"))])
    guest.process.send_signal(signal.SIGHUP)
    assert guest.signal(signal.SIGTERM) == (143, "error: terminated\n")


def test_a_terminal_that_is_closed_ends_the_run(machine: Machine, seal: Seal, tmp_path: Path) -> None:
    report, image = tmp_path / "report.json", seal("wait")
    pid, master = pty.fork()
    if pid == 0:
        arguments = command(machine, image, "--report", str(report))
        os.execv(arguments[0], arguments)
    output = b""
    while b"waiting" not in output:
        output += os.read(master, 4096)
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    assert json.loads(report.read_text())["result"]["exit_code"] == 129


def test_a_guest_does_not_outlive_its_ultravisor(machine: Machine, seal: Seal) -> None:
    guest = Running(command(machine, seal("wait")))
    assert guest.signal(signal.SIGKILL)[0] == -signal.SIGKILL


def test_a_killed_qemu_has_an_exit_code_of_its_own(machine: Machine, seal: Seal) -> None:
    guest = Running(command(machine, seal("wait")))
    os.kill(guest.qemu, signal.SIGKILL)
    messages = guest.process.communicate(timeout=PATIENCE)[1].decode()
    assert guest.process.returncode == 6
    assert messages == "error: the guest is lost: QEMU was killed by signal 9\n"


def test_a_reader_that_goes_away_ends_the_guest(machine: Machine, seal: Seal) -> None:
    guest = Running(command(machine, seal("hello" + " nap=300 hello" * 40 + " loop")), b"hello")
    assert guest.process.stdout is not None
    assert guest.process.stderr is not None
    guest.process.stdout.close()
    guest.process.wait(timeout=PATIENCE)
    assert guest.process.stderr.read() == (
        b"error: the reader of the guest's console is gone, so the guest was ended\n"
    )
    guest.process.stderr.close()
    assert guest.process.returncode == 1
    assert is_gone(guest.qemu)


def test_the_line_mode_console_is_shown_when_asked_for(machine: Machine, seal: Seal) -> None:
    image = seal("hello")
    assert run(machine, image).stdout.count("hello") == 1
    assert run(machine, image, "--kernel-console").stdout.count("hello") >= 1

"""``zseal guest`` on guests that ``zseal run`` started in other processes."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import PATIENCE, catches, is_gone, wait_until
from zseal.cli.main import main
from zseal.guest.control.client import GuestControl
from zseal.guest.control.protocol import ControlError
from zseal.guest.control.registry import Directory
from zseal.guest.paging.page_file import HEADER_SIZE
from zseal.hostkeys.machine import Machine

if TYPE_CHECKING:
    from tests.integration.control.conftest import MEMORY, Seal
else:
    MEMORY, Seal = 32 << 20, object

pytestmark = pytest.mark.qemu

MARKER = "a-word-that-must-not-be-seen"
WORDS = f"marker={MARKER} share=3 say=there wait"
ZSEAL = [sys.executable, "-m", "zseal"]
Start = Callable[..., subprocess.Popen[str]]


def zseal(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command here, which spares its start-up: the guests it is about run in processes of their own."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(arguments)
    code = ended.value.code
    result = subprocess.CompletedProcess(
        arguments, code if isinstance(code, int) else 1, out.getvalue(), err.getvalue()
    )
    assert not check or result.returncode == 0, result.stderr
    return result


def as_json(*arguments: str) -> Any:
    return json.loads(zseal("guest", *arguments, "--format", "json").stdout)


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "zseal"


def says_waiting(name: str) -> bool:
    with contextlib.suppress(ControlError), GuestControl(name) as guest:
        return any("waiting" in line for line in guest.console())
    return False


@pytest.fixture
def start(machine: Machine, seal: Seal, runtime: Path) -> Iterator[Start]:
    """Starts ``zseal run`` and waits until the guest has said that it is there."""
    running: list[subprocess.Popen[str]] = []

    def run(name: str, *options: str, words: str = WORDS, wait: bool = True) -> subprocess.Popen[str]:
        command = [*ZSEAL, "run", str(seal(words)), "--machine", str(machine.directory), "-m", str(MEMORY >> 20)]
        process = subprocess.Popen(
            [*command, "--name", name, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        if wait:
            wait_until(lambda: process.poll() is not None or says_waiting(name))
            assert process.poll() is None, process.communicate()
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate(timeout=PATIENCE)


def test_a_guest_is_seen_paused_paged_and_stopped_from_outside(start: Start, runtime: Path, tmp_path: Path) -> None:
    run = start("one")
    (listed,) = as_json("list")
    status = as_json("status", "one")
    assert listed["name"] == status["name"] == "one"
    assert (status["pid"], status["state"], status["protected"], status["boots"]) == (run.pid, "running", True, 1)
    pages = MEMORY // 4096
    assert status["pages"]["private"] == pages - 3
    assert status["pages"]["shared"] == 3
    assert status["calls"]["SET_SHARED_ACCESS"] == 3

    shown = as_json("pages", "one", "--png", str(tmp_path / "map.png"), "--svg", str(tmp_path / "map.svg"))
    assert shown["counts"] == {"private": pages - 3, "shared": 3}
    assert shown["runs"][1] == {"address": 0x200000, "pages": 3, "state": "shared"}
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "map.svg").read_text().startswith("<svg")
    assert "0x000000200000-0x000000202fff         3 shared" in zseal("guest", "pages", "one").stdout

    # what the host sees: shared pages as they are, private ones encrypted
    line = zseal("guest", "read-memory", "one", "0x200000", "32").stdout.splitlines()[0]
    assert line.startswith("000000200000  7a736561 6c20706f")
    assert line.endswith("zseal pool page ")
    assert as_json("read-memory", "one", "0x200000", "5")["data"] == b"zseal".hex()
    zseal("guest", "dump", "one", str(tmp_path / "dump"))
    dump = (tmp_path / "dump").read_bytes()
    assert len(dump) == MEMORY
    assert dump[0x200000:].startswith(b"zseal pool page 00000000 shared ")
    assert MARKER.encode() not in dump

    assert any(line.endswith(": there") for line in as_json("console", "one")["lines"])
    assert zseal("guest", "screendump", "one", "-n", "1").stdout == "zseal-test-guest: waiting\n"

    zseal("guest", "pause", "one")
    assert as_json("status", "one")["state"] == "paused"
    moved = as_json("page-out", "one", "all", str(tmp_path / "pages"))
    assert moved == {"name": "one", "state": "paged-out", "pages": pages - 3, "file": str(tmp_path / "pages")}
    assert as_json("status", "one")["paged_out"] == [{"path": str(tmp_path / "pages"), "pages": pages - 3}]
    assert zseal("guest", "page-in", "one", str(tmp_path / "pages")).stdout.startswith(f"{pages - 3:,} pages came back")
    assert as_json("status", "one")["state"] == "paused"
    assert zseal("guest", "resume", "one").stdout == "one is running\n"

    looks = zseal("guest", "watch", "one", "--count", "2", "--interval", "0.1").stdout.splitlines()
    assert len(looks) == 2
    assert f"private {pages - 3:,}, shared 3" in looks[0]

    assert zseal("guest", "stop", "one", "--timeout", "1").stdout == "stopped by zseal guest stop\n"
    _, errors = run.communicate(timeout=PATIENCE)
    assert (run.returncode, errors) == (130, "error: stopped by zseal guest stop\n")
    assert list(runtime.iterdir()) == []
    assert as_json("list") == []


def test_a_tampered_page_file_ends_the_run_with_its_own_exit_code(start: Start, runtime: Path, tmp_path: Path) -> None:
    run = start("one")
    file = tmp_path / "pages"
    zseal("guest", "page-out", "one", "10", str(file), "--from", "0x100000")
    data = bytearray(file.read_bytes())
    data[HEADER_SIZE + 1000] ^= 0x80
    file.write_bytes(data)
    ended = zseal("guest", "resume", "one", check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: integrity check failed for page 0x100000 from {file}: CONV_TO_SEC_STOR")
    assert ended.stderr.count("\n") == 1
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 8
    assert errors.startswith("error: integrity check failed for page 0x100000")
    assert list(runtime.iterdir()) == []


def test_what_can_not_be_done_is_one_line(start: Start, tmp_path: Path) -> None:
    start("one")
    wrong = {
        ("status", "two"): "no guest named two is running",
        ("status", "../x"): "cannot be called",
        ("status", "--", "-x"): "a letter or digit first",
        ("read-memory", "one", "zero", "5"): "not a valid address",
        ("read-memory", "one", "0x" + "f" * 5000, "1"): "is too large: address",
        ("read-memory", "one", "0", str(MEMORY + 1)): "are not in the guest's memory of 32 MiB",
        ("page-out", "one", "0", str(tmp_path / "x")): "whole number from 1 on",
        ("page-out", "one", "5", str(tmp_path / "x"), "--from", "0x10000000"): "no private pages from 0x10000000",
        ("page-out", "one", "5", str(tmp_path / "no" / "x")): "cannot create the output: No such file",
        ("page-in", "one", str(tmp_path / "x")): "cannot read the page file: No such file",
        ("page-in", "one", sys.executable): f"{sys.executable}: this is not a page file",
        ("pages", "one", "--png", str(tmp_path / "no" / "x")): "cannot create the output",
        ("dump", "one", str(tmp_path)): "the output exists",
    }
    for arguments, message in wrong.items():
        ended = zseal("guest", *arguments, check=False)
        assert ended.returncode in (1, 2), arguments
        assert message in ended.stderr, arguments
        assert ended.stderr.count("\n") == 1, ended.stderr
    assert as_json("status", "one")["state"] == "running"


def test_several_guests_have_names_of_their_own(start: Start, runtime: Path) -> None:
    first, second = start("one", wait=False), start("two", wait=False)
    third = start("three")
    wait_until(lambda: len(as_json("list")) == 3)
    for name in ("one", "two"):
        refused = start(name, wait=False)
        _, errors = refused.communicate()
        assert (refused.returncode, errors) == (
            1,
            f"error: a guest named {name} is already running; choose another name with --name\n",
        )
    found = as_json("list")
    assert [each["name"] for each in found] == ["one", "three", "two"]
    assert {each["pid"] for each in found} == {first.pid, second.pid, third.pid}
    zseal("guest", "kill", "two")
    second.communicate(timeout=PATIENCE)
    assert second.returncode == 130
    assert [each["name"] for each in as_json("list")] == ["one", "three"]
    assert "two" not in zseal("guest", "list").stdout


def test_a_killed_run_takes_its_guest_along_and_is_cleaned_up_after(start: Start, runtime: Path) -> None:
    run = start("one")
    (qemu,) = children(run.pid)
    run.kill()
    run.communicate(timeout=PATIENCE)
    wait_until(lambda: is_gone(int(qemu)))
    assert [path.name for path in runtime.iterdir()] == ["one.sock"]
    ended = zseal("guest", "status", "one", check=False)
    assert (ended.returncode, ended.stderr) == (
        1,
        "error: no guest named one is running; zseal guest list shows those that are\n",
    )
    assert list(runtime.iterdir()) == []


def children(pid: int) -> Iterator[str]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from (task / "children").read_text().split()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_no_signal_leaves_a_socket(start: Start, runtime: Path, end: signal.Signals) -> None:
    run = start("one")
    run.send_signal(end)
    run.communicate(timeout=PATIENCE)
    assert run.returncode == 128 + end
    assert list(runtime.iterdir()) == []


def test_a_signal_in_any_phase_of_a_boot_leaves_nothing(start: Start, runtime: Path) -> None:
    for step in range(16):
        run = start("one", wait=False)
        wait_until(partial(catches, run.pid, signal.SIGTERM), pause=0.002)  # before that Python itself begins
        time.sleep(step * 0.05)
        offspring = list(children(run.pid))
        run.terminate()
        _, errors = run.communicate(timeout=PATIENCE)
        assert run.returncode == 128 + signal.SIGTERM, errors
        assert errors.splitlines()[-1] == "error: terminated"
        assert list(runtime.glob("*")) == []
        assert not [pid for pid in offspring if Path(f"/proc/{pid}").exists()]


def test_a_client_that_vanishes_while_pages_leave_changes_nothing(start: Start, tmp_path: Path) -> None:
    start("one")

    def vanishes_before_the_end(file: Path) -> bool:
        with Directory() as directory, directory.connect("one") as connection:
            request = {"command": "page-out", "arguments": {"path": str(file)}}
            connection.sendall(json.dumps(request).encode() + b"\n")
            received = b""
            while b"progress" not in received:
                received += connection.recv(1 << 16)
        wait_until(lambda: file.exists() or as_json("status", "one")["state"] == "running")
        return not file.exists()

    attempts = (tmp_path / f"pages-{number}" for number in itertools.count())
    while not vanishes_before_the_end(next(attempts)):  # all pages may have left sooner
        zseal("guest", "resume", "one")
    assert as_json("status", "one")["pages"]["exported"] == 0
    assert not [path for path in tmp_path.glob("*pages*") if not path.name.startswith("pages-")]


def test_the_guest_goes_on_while_it_is_dumped_and_watched(start: Start, tmp_path: Path) -> None:
    look = f" nap=500 holds=marker,{MARKER[:6]}"
    run = start("one", words=f"marker={MARKER} share=3 say=waiting{look * 120}")
    watch = subprocess.Popen(
        [*ZSEAL, "guest", "watch", "one", "--interval", "0.1", "--format", "json"], stdout=subprocess.PIPE, text=True
    )
    with GuestControl("one") as guest:
        for number in range(3):
            assert guest.dump(tmp_path / f"dump-{number}") == MEMORY
        before = guest.console()
        wait_until(lambda: guest.console() != before)
        lines = guest.console()
        assert "holds address=0x100000 yes" in "\n".join(lines[-3:])
        assert watch.stdout is not None
        looks = [json.loads(watch.stdout.readline()) for _ in range(6)]
        guest.kill()
    run.communicate(timeout=PATIENCE)
    watch.communicate(timeout=PATIENCE)
    assert watch.returncode == 0
    assert [look["seconds"] for look in looks] == sorted(look["seconds"] for look in looks)


def test_live_view_on_a_terminal_and_the_page_afterwards(
    machine: Machine, seal: Seal, tmp_path: Path, runtime: Path
) -> None:
    image = seal("marker=x share=5 nap=1200 unshare=2 say=done")
    page = tmp_path / "page.html"
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50", "COLORTERM": "truecolor"}
    run = subprocess.Popen(
        [*ZSEAL, "run", str(image), "--machine", str(machine.directory), "-m", "32", "--watch", "--html", str(page)],
        stdout=slave,
        stderr=slave,
        env=environment,
    )
    os.close(slave)
    seen = b""
    while run.poll() is None:
        with contextlib.suppress(BlockingIOError, OSError):
            seen += os.read(master, 1 << 16)
        time.sleep(0.02)
    with contextlib.suppress(BlockingIOError, OSError):
        while piece := os.read(master, 1 << 16):
            seen += piece
    os.close(master)
    text = seen.decode()
    assert run.returncode == 0
    for part in ("SET_SHARED_ACCESS", "Pages", "zseal-test-guest: done", "ended", "protected bootloader"):
        assert part in text, part
    assert "48;2;0;114;178" in text
    assert "REMOVE_SHARED_ACCESS" in page.read_text()
    assert list(runtime.iterdir()) == []

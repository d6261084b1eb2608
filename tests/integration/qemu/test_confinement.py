"""QEMU gives up what it does not need, and a crash of it leaves nothing of the guest."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

import pytest

from tests.integration.qemu.conftest import Start
from zseal.engine.qemu.engine import QemuEngine
from zseal.guest.guest import Guest

pytestmark = pytest.mark.qemu


def process(guest: Guest) -> Path:
    engine = guest.engine
    assert isinstance(engine, QemuEngine)
    return Path("/proc", str(engine.pid))


def is_confined(guest: Guest) -> bool:
    """Whether the kernel filters the system calls of QEMU's threads."""
    modes = [re.search(r"^Seccomp:\t(\d)$", each.read_text(), re.M) for each in process(guest).glob("task/*/status")]
    return {mode[1] for mode in modes if mode} == {"2"}


def dumps_memory(guest: Guest, size: int) -> bool:
    """Whether a core dump of QEMU would have the guest's memory."""
    blocks = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", (process(guest) / "smaps").read_text(), flags=re.MULTILINE)
    memory = [block for block in blocks if re.search(rf"^Size: +{size >> 10} kB$", block, re.MULTILINE)]
    assert memory, "the guest's memory is mapped"
    return not all(re.search(r"^VmFlags:.* dd\b", block, re.MULTILINE) for block in memory)


def core_limit(guest: Guest) -> str:
    (limit,) = re.findall(r"^Max core file size +(\S+)", (process(guest) / "limits").read_text(), re.MULTILINE)
    return str(limit)


def test_qemu_runs_confined_and_a_crash_of_it_leaves_no_memory(start: Start) -> None:
    with start("share=2 wait", memory=48 << 20) as guest:
        guest.wait_for_output("waiting")
        assert is_confined(guest)
        assert core_limit(guest) == "1"
        assert not dumps_memory(guest, 48 << 20)


def test_core_dumps_can_be_asked_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSEAL_CORE_DUMPS", "allow")
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # commands that other tests ran in this process have lowered the limit, which QEMU inherits
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    with start("wait", memory=48 << 20) as guest:
        guest.wait_for_output("waiting")
        assert core_limit(guest) != "1"
        assert dumps_memory(guest, 48 << 20)
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_the_users_own_sandbox_takes_the_place_of_ours(start: Start) -> None:
    with start("wait", qemu_arguments=["-sandbox", "off"]) as guest:
        guest.wait_for_output("waiting")
        assert not is_confined(guest)


def test_a_qemu_without_seccomp_runs_all_the_same(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zseal.engine.qemu.launch.knows_sandbox", lambda _path: False)
    with start("wait") as guest:
        guest.wait_for_output("waiting")
        assert not is_confined(guest)


def test_a_killed_qemu_leaves_no_core_dump(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with start("wait") as guest:
        guest.wait_for_output("waiting")
        before = set(tmp_path.iterdir())
        os.kill(int(process(guest).name), signal.SIGSEGV)
        result = guest.wait()
    assert result is not None
    assert "signal 11" in result.message
    assert set(tmp_path.iterdir()) <= before

"""A crash leaves no file with a guest's memory or a key, unless the user asks for it."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zseal.arch.storage import MIB
from zseal.coredumps import core_dumps_allowed, forbid_core_dumps
from zseal.engine.memory import SharedMemory
from zseal.errors import UsageError
from zseal.hypervisor.storage import HostStorage

# A command that crashes; before, core dumps are allowed without a limit as far as that is up to us.
CRASH = """
import os, resource, sys, typer
from zseal.cli.program import run_program

hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

def build():
    app = typer.Typer()
    app.command()(os.abort)
    return app

run_program(build, [], "zseal")
"""


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZSEAL_CORE_DUMPS", raising=False)


def crash(folder: Path) -> bool:
    """Let a command of zseal crash in ``folder``; return whether the kernel wrote or handed on a core dump."""
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", f"import os; os.chdir({str(folder)!r})\n{CRASH}"],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)],
    )
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status)
    return os.WCOREDUMP(status)


def test_a_command_that_crashes_leaves_no_core_dump(tmp_path: Path) -> None:
    assert not crash(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_command_starts_leaves_none_either() -> None:
    program = (
        "import subprocess, zseal.coredumps\n"
        "zseal.coredumps.forbid_core_dumps()\n"
        "subprocess.run(['grep', 'core file size', '/proc/self/limits'], check=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[4] == "1"


def flags(view: memoryview) -> str:
    """The flags of the mapping that ``view`` is in."""
    address = int(np.frombuffer(view, dtype=np.uint8).ctypes.data)
    for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE):
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", block)
        if bounds and int(bounds[1], 16) <= address < int(bounds[2], 16):
            found = re.search(r"^VmFlags: (.*)$", block, re.MULTILINE)
            assert found is not None
            return found[1]
    raise AssertionError("the memory is not mapped")


@pytest.mark.parametrize("allowed", [False, True])
def test_guest_memory_is_left_out_of_the_dump_of_a_program_that_uses_the_library(
    monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    if allowed:
        monkeypatch.setenv("ZSEAL_CORE_DUMPS", "allow")
    memory = SharedMemory(4 * MIB)
    host = HostStorage(memory, 4 * MIB)
    for view in (memory.view(0, 4096), host.view(host.base, 4096)):
        assert ("dd" in flags(view).split()) is not allowed
        view.release()
    host.close()
    memory.close()


def test_the_environment_can_allow_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not core_dumps_allowed()
    monkeypatch.setenv("ZSEAL_CORE_DUMPS", "")
    assert not core_dumps_allowed()
    monkeypatch.setenv("ZSEAL_CORE_DUMPS", "allow")
    assert core_dumps_allowed()
    before = resource.getrlimit(resource.RLIMIT_CORE)
    forbid_core_dumps()
    assert resource.getrlimit(resource.RLIMIT_CORE) == before


@pytest.mark.parametrize("value", ["on", "1", "Allow", "allow\n"])
def test_other_values_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ZSEAL_CORE_DUMPS", value)
    with pytest.raises(UsageError, match="ZSEAL_CORE_DUMPS has the unknown value") as caught:
        forbid_core_dumps()
    assert "\n" not in str(caught.value)

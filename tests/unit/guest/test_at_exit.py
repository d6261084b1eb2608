"""A program that ends while its guest runs: the guest is ended before Python takes down what it runs on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.testguest import kernel

START = """
import os, sys, weakref
from pathlib import Path
from zseal.guest.guest import Guest
from zseal.hostkeys.machine import Machine

machine = Machine.load(Path(sys.argv[1], "m"))
guest = Guest(Path(sys.argv[1], "image"), machine=machine, memory=8 << 20, engine="embedded")
guest.start()
guest.wait_for_output("ready")
"""
WATCH = """
class Emulator: pass
emulator = Emulator()  # freed as Unicorn's are
weakref.finalize(emulator, lambda: print(guest.result.message if guest.result else "it still runs"))
"""
FORK = """
guest.pause()  # Unicorn itself may be copied while it rests only
child = os.fork()
if child:
    print(os.waitpid(child, 0)[1], guest.result, flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("program")
    machine = Machine.create(folder / "m", name="m")
    host_keys = [machine.keys.host.public_key()]
    build_image(folder / "image", kernel=kernel(), cmdline=b"say=ready loop", host_keys=host_keys)
    return folder


def run(script: str, folder: Path) -> str:
    quiet = ["-W", "ignore::DeprecationWarning"]  # newer Pythons warn of a fork where there are threads
    command = [sys.executable, *quiet, "-c", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("attempt", range(3))
def test_the_guest_is_ended_before_what_it_runs_on_is_freed(folder: Path, attempt: int) -> None:
    assert run(START + WATCH, folder) == "the guest was stopped\n"


def test_a_forked_process_leaves_its_parents_guest_alone(folder: Path) -> None:
    assert run(START + FORK, folder) == "0 None\n"

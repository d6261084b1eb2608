"""What a killed process leaves is removed by the next one, and nothing else is."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zseal.files import new_directory, write_atomic
from zseal.hostkeys.machine import Machine
from zseal.parts import part_directory, remove_left_over

MAKING = {
    "directory": """
with new_directory(path, what="machine", hint="") as part:
    (part / "host-key.pem").write_text("secret")
    wait()
""",
    "output of a file system that knows no files without a name": """
del os.O_TMPFILE
with atomic_output(path, overwrite=False) as stream:
    stream.write(b"secret")
    stream.flush()
    wait()
""",
    "scratch directory": """
with part_directory(path.parent, prefix="zseal-demo-", suffix="") as part:
    (part / "host-key.pem").write_text("secret")
    wait()
""",
}
PROGRAM = """
import os, sys
from pathlib import Path
from zseal.files import atomic_output, new_directory
from zseal.parts import part_directory
path = Path(sys.argv[1])

def wait():
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_makes(what: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", PROGRAM + MAKING[what], str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def write(folder: Path) -> None:
    write_atomic(folder / "unrelated", b"", overwrite=True)


def make_directory(folder: Path) -> None:
    with new_directory(folder / "unrelated", what="thing", hint=""):
        pass


def make_scratch(folder: Path) -> None:
    with part_directory(folder, prefix="zseal-demo-", suffix=""):
        (folder / "unrelated").touch()


@pytest.mark.parametrize("what", MAKING)
@pytest.mark.parametrize("use", [write, make_directory, make_scratch])
def test_what_a_killed_process_was_making_is_removed_by_the_next_of_its_kind(
    tmp_path: Path, what: str, use: Callable[[Path], None]
) -> None:
    with another_process_makes(what, tmp_path / "made") as process:
        (part,) = tmp_path.iterdir()
        process.kill()
    assert list(tmp_path.iterdir()) == [part]
    use(tmp_path)
    same_kind = (what == "scratch directory") == (use is make_scratch)
    assert part.exists() is not same_kind
    assert (tmp_path / "unrelated").exists()


@pytest.mark.parametrize("what", MAKING)
def test_what_is_still_being_made_is_left_alone(tmp_path: Path, what: str) -> None:
    with another_process_makes(what, tmp_path / "made") as process:
        (part,) = tmp_path.iterdir()
        for use in (write, make_scratch):
            use(tmp_path)
        assert part.exists()
        process.communicate(b"")
        assert process.returncode == 0
    assert (tmp_path / "made").exists() is (what != "scratch directory")
    assert not part.exists()


def test_only_our_own_files_and_directories_of_such_names_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = "0123456789abcdef"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    for name in (f".zseal-{number}.part.x", f".zseal-{number[1:]}.part", f"zseal-{number}.part", f".zseal-{number}"):
        (tmp_path / name).touch()
    (tmp_path / f".zseal-{number}.part").symlink_to("precious")
    os.mkfifo(tmp_path / f".zseal-{number[::-1]}.part")
    before = sorted(tmp_path.iterdir())
    remove_left_over(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "precious" / "file").exists()
    ours = tmp_path / f".zseal-{'a' * 16}.part"
    ours.touch()
    with monkeypatch.context() as patch:
        patch.setattr("zseal.parts.os.geteuid", lambda: os.getuid() + 1)
        remove_left_over(tmp_path)
        assert ours.exists()
    remove_left_over(tmp_path)
    assert not ours.exists()


def test_a_directory_that_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    remove_left_over(tmp_path / "absent")
    (tmp_path / "file").touch()
    remove_left_over(tmp_path / "file")


@pytest.mark.parametrize("error", [ImportError(), OSError(38, "no locks")])
def test_without_locks_nothing_is_removed_and_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(_descriptor: int, _operation: int) -> None:
        raise error

    if isinstance(error, ImportError):
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", fails)
    left = tmp_path / f".zseal-{'a' * 16}.part"
    left.mkdir()
    write(tmp_path)
    Machine.create(tmp_path / "machine")
    assert sorted(path.name for path in tmp_path.iterdir()) == [left.name, "machine", "unrelated"]


@pytest.mark.parametrize("use", [write, make_directory])
def test_a_part_that_another_process_takes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], None]
) -> None:
    real, calls = fcntl.flock, []

    def busy_at_first(descriptor: int, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            raise BlockingIOError
        real(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", busy_at_first)
    use(tmp_path)
    assert len(calls) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["unrelated"]


# Makes a machine again and again and is killed at the first, second, ... call that changes files; prints how often.
KILLED = """
import os, signal, sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric import ec
from zseal.hostkeys.machine import Machine

folder = Path(sys.argv[1])
keys = [ec.generate_private_key(ec.SECP521R1()) for _ in range(8)]
ec.generate_private_key = lambda _curve: keys.pop()
CALLS = ("mkdir", "link", "rename", "fsync", "open")

def killed_at(step):
    if (child := os.fork()):
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    count = 0
    for name in CALLS:
        def counted(*arguments, real=getattr(os, name), **keywords):
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **keywords)
        setattr(os, name, counted)
    Machine.create(folder / "machine")
    os._exit(0)

step = 1
while killed_at(step):
    assert not (folder / "machine").exists(), step
    step += 1
print(step)
"""


def test_a_machine_is_made_whole_or_nothing_of_it_stays_wherever_it_is_killed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20, "it was killed at each of its steps"
    assert [path.name for path in tmp_path.iterdir()] == ["machine"]
    assert Machine.load(tmp_path / "machine")

"""Where guests listen: names, modes, what killed guests leave behind."""

from __future__ import annotations

import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zseal.errors import InputError
from zseal.guest.control.client import GuestControl, list_guests
from zseal.guest.control.protocol import ControlError
from zseal.guest.control.registry import Directory, check_name, directory_path, listen, name_from


def left_behind(runtime: Path, name: str) -> Path:
    """A socket that nobody listens on any more, as kill -9 leaves it."""
    listener = listen(name)
    listener.socket.close()
    return runtime / f"{name}.sock"


def test_socket_and_directory_belong_to_the_user_alone(runtime: Path) -> None:
    listener = listen("demo")
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE((runtime / "demo.sock").stat().st_mode) == 0o600
    listener.close()
    assert list(runtime.iterdir()) == []
    listener.close()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_directory_open_to_others_is_refused(runtime: Path, mode: int) -> None:
    runtime.mkdir()
    runtime.chmod(mode)
    with pytest.raises(ControlError, match="open to other users"):
        listen("demo")
    with pytest.raises(ControlError, match="open to other users"):
        list_guests()


def test_symbolic_link_instead_of_the_directory_is_refused(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ControlError, match="cannot use the guests' directory"):
        listen("demo")


def test_directory_of_another_user_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.mkdir(mode=0o700)
    Directory(runtime).close()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ControlError, match="open to other users"):
        Directory(runtime)


def test_runtime_directory_that_is_not_there_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for value in (str(tmp_path / "missing"), "relative", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert directory_path() == Path(f"/tmp/zseal-{os.geteuid()}")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".x", "a b", "ü", "x" * 65, "a\n", "a\0"])
def test_names_that_can_not_be_are_refused(runtime: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be called"):
        check_name(name)
    with pytest.raises(InputError):
        listen(name)
    with pytest.raises(InputError):
        GuestControl(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [("debian-13.1", "debian-13.1"), ("my image", "my-image"), ("../x", "x"), ("", "guest"), ("ü", "guest")],
)
def test_names_are_made_of_any_text(text: str, name: str) -> None:
    assert name_from(text) == name
    assert check_name(name) == name


def test_name_in_use_gives_one_line(runtime: Path) -> None:
    listener = listen("demo")
    with pytest.raises(ControlError, match=r"^a guest named demo is already running; choose another name with `name`$"):
        listen("demo")
    listener.close()


def test_names_that_nobody_chose_are_numbered_however_many_want_them_at_once(runtime: Path) -> None:
    left_behind(runtime, "demo")
    with ThreadPoolExecutor(8) as pool:
        listeners = list(pool.map(lambda _: listen("demo", numbered=True), range(8)))
    assert sorted(each.name for each in listeners) == ["demo", *(f"demo-{number}" for number in range(2, 9))]
    for each in listeners:
        each.close()


def test_name_of_a_killed_guest_is_free_again(runtime: Path) -> None:
    assert left_behind(runtime, "demo").exists()
    listener = listen("demo")
    with pytest.raises(ControlError, match="is already running"):
        listen("demo")
    listener.close()


def test_next_command_cleans_up_after_a_killed_guest(runtime: Path) -> None:
    stale = left_behind(runtime, "demo")
    with pytest.raises(ControlError, match=r"^no guest named demo is running; "):
        GuestControl("demo")
    assert not stale.exists()
    stale = left_behind(runtime, "other")
    assert list_guests() == []
    assert not stale.exists()


def test_closing_late_leaves_the_successor_alone(runtime: Path) -> None:
    first = listen("demo")
    (runtime / "demo.sock").unlink()
    second = listen("demo")
    first.close()
    assert (runtime / "demo.sock").exists()
    second.close()


def test_a_listener_too_busy_to_answer_counts_as_running(runtime: Path) -> None:
    listener = listen("demo")
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(30)]
    with Directory() as directory:
        for each in waiting:
            try:
                each.connect(f"/proc/self/fd/{os.open(runtime, os.O_PATH)}/demo.sock")
            except BlockingIOError:
                break
        else:
            pytest.fail("the queue never filled")
        assert directory.clean() == []
    with pytest.raises(ControlError, match="is already running"):
        listen("demo")
    for each in waiting:
        each.close()
    listener.close()


def test_nothing_to_list_before_the_first_guest(runtime: Path) -> None:
    assert list_guests() == []
    with pytest.raises(ControlError, match="no guest named demo is running"):
        GuestControl("demo")
    assert not runtime.exists()

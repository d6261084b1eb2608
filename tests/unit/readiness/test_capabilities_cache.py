"""Refreshing libvirt's cache stops the daemon, deletes the descriptions, and starts the daemon whatever happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from zseal.errors import ZsealError
from zseal.readiness.capabilities_cache import (
    RefreshPlan,
    ServiceManager,
    plan_session_refresh,
    plan_system_refresh,
    refresh,
)
from zseal.readiness.source import NOT_FOUND, CommandResult


class FakeSystemd(ServiceManager):
    """Units that are active, and a record of what was asked."""

    def __init__(self, *active: str, broken: str = "") -> None:
        self.active = active
        self.broken = broken
        self.asked: list[tuple[str, ...]] = []

    def systemctl(self, *arguments: str) -> CommandResult:
        self.asked.append(arguments)
        verb, *units = arguments
        if verb == self.broken:
            return CommandResult(1, "", "Failed to stop: Access denied\n")
        if verb == "is-active":
            states = ["active" if unit in self.active else "inactive" for unit in units]
            return CommandResult(3, "\n".join(states) + "\n", "")
        return CommandResult(0, "", "")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for name in ("a.xml", "b.xml", "notes.txt"):
        (tmp_path / name).write_text("<qemuCaps/>")
    return tmp_path


@pytest.mark.parametrize("daemon", ["virtqemud", "libvirtd"])
def test_sockets_stop_before_the_service_and_everything_starts_again(cache: Path, daemon: str) -> None:
    manager = FakeSystemd(f"{daemon}.socket", f"{daemon}-ro.socket", f"{daemon}.service")
    plan = plan_system_refresh(manager, cache)
    assert plan.units == (f"{daemon}.socket", f"{daemon}-ro.socket", f"{daemon}.service")
    refresh(plan, manager)
    assert [call[0] for call in manager.asked] == ["is-active", "stop", "start"]
    assert manager.asked[1][1:] == manager.asked[2][1:] == plan.units
    assert [path.name for path in cache.iterdir()] == ["notes.txt"]


def test_the_dry_run_names_the_same_steps(cache: Path) -> None:
    plan = plan_system_refresh(FakeSystemd("libvirtd.service"), cache)
    assert plan.steps() == (
        "systemctl stop libvirtd.service",
        f"rm {cache}/a.xml",
        f"rm {cache}/b.xml",
        "systemctl start libvirtd.service",
    )
    assert len(list(cache.iterdir())) == 3


def test_the_daemon_starts_again_where_deleting_fails(tmp_path: Path) -> None:
    (tmp_path / "a.xml").mkdir()
    manager = FakeSystemd("virtqemud.service")
    plan = RefreshPlan(directory=tmp_path, files=(tmp_path / "a.xml",), units=("virtqemud.service",))
    with pytest.raises(ZsealError, match="cannot clear"):
        refresh(plan, manager)
    assert manager.asked[-1] == ("start", "virtqemud.service")


def test_nothing_is_deleted_where_the_daemon_does_not_stop(cache: Path) -> None:
    manager = FakeSystemd("virtqemud.service", broken="stop")
    with pytest.raises(ZsealError, match="Access denied"):
        refresh(plan_system_refresh(manager, cache), manager)
    assert (cache / "a.xml").exists()


def test_without_systemd_only_the_files_go(cache: Path) -> None:
    class NoSystemd(ServiceManager):
        def systemctl(self, *arguments: str) -> CommandResult:
            return CommandResult(NOT_FOUND, "", "")

    plan = plan_system_refresh(NoSystemd(), cache)
    assert plan.units == ()
    refresh(plan, NoSystemd())
    assert not (cache / "a.xml").exists()


def test_a_missing_cache_is_nothing_to_do(tmp_path: Path) -> None:
    assert plan_system_refresh(FakeSystemd(), tmp_path / "none").steps() == ()


def test_a_session_cache_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    directory = tmp_path / "cache" / "libvirt" / "qemu" / "cache" / "capabilities"
    directory.mkdir(parents=True)
    (directory / "a.xml").write_text("")
    (tmp_path / "run" / "libvirt").mkdir(parents=True)
    # the number of a process that is no libvirt daemon: a pid file that outlived its process must not end another one
    (tmp_path / "run" / "libvirt" / "virtqemud.pid").write_text("1\n")
    plan = plan_session_refresh()
    assert plan.session_daemon is None
    assert plan.files == (directory / "a.xml",)

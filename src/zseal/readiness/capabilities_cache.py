"""Clears what libvirt stored about QEMU and the host, so that it probes again.

libvirt keeps expanded descriptions of each QEMU program in files. The cure for a stale one is always the same: stop
the daemon, delete the files, start the daemon. Running guests keep running meanwhile.
"""

from __future__ import annotations

import abc
import dataclasses
import os
import shlex
import signal
from pathlib import Path

from zseal.errors import OutputError, ZsealError
from zseal.readiness.source import LIBVIRT_CACHE, NOT_FOUND, CommandResult, run_bounded

SYSTEMCTL_SECONDS = 90
_MODULAR = "virtqemud"
_MONOLITHIC = "libvirtd"
_SOCKETS = ("", "-ro", "-admin", "-tcp", "-tls")


class ServiceManager(abc.ABC):
    """Contract: the calls of systemd; tests replace it."""

    @abc.abstractmethod
    def systemctl(self, *arguments: str) -> CommandResult:
        """Run ``systemctl`` with ``arguments``."""


class Systemd(ServiceManager):
    """The system's own service manager."""

    def systemctl(self, *arguments: str) -> CommandResult:
        """See :meth:`ServiceManager.systemctl`."""
        return run_bounded(("systemctl", "--no-ask-password", *arguments), SYSTEMCTL_SECONDS)


@dataclasses.dataclass(frozen=True)
class RefreshPlan:
    """The work to do: units to stop and to start again, a process to end, files to delete.

    ``session_daemon`` is the process id of the user's own daemon, which starts itself again when next needed.
    """

    directory: Path
    files: tuple[Path, ...]
    units: tuple[str, ...] = ()
    session_daemon: int | None = None

    def steps(self) -> tuple[str, ...]:
        """Return the plan as equivalent shell commands."""
        lines = []
        units = " ".join(self.units)
        if units:
            lines.append(f"systemctl stop {units}")
        if self.session_daemon is not None:
            lines.append(f"kill {self.session_daemon}")
        lines += [f"rm {shlex.quote(str(file))}" for file in self.files]
        if units:
            lines.append(f"systemctl start {units}")
        return tuple(lines)


def _cached_files(directory: Path) -> tuple[Path, ...]:
    try:
        return tuple(sorted(p for p in directory.iterdir() if p.suffix == ".xml" and (p.is_file() or p.is_symlink())))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ZsealError(
            f"cannot read libvirt's cache: {error.strerror or error}",
            where=str(directory),
            hint="run this as root, or with `plan_session_refresh()` for your own daemon",
        ) from error


def _units(manager: ServiceManager) -> tuple[str, ...]:
    names = [f"{daemon}{kind}.socket" for daemon in (_MODULAR, _MONOLITHIC) for kind in _SOCKETS]
    names += [f"{_MODULAR}.service", f"{_MONOLITHIC}.service"]
    answer = manager.systemctl("is-active", *names)
    if answer.status == NOT_FOUND:
        return ()
    states = answer.stdout.split()
    # sockets come first, so that none of them starts the daemon again in between
    return tuple(name for name, state in zip(names, states, strict=False) if state == "active")


def plan_system_refresh(manager: ServiceManager, directory: Path = Path(LIBVIRT_CACHE)) -> RefreshPlan:
    """Plan for the system daemon, modular (virtqemud) or not (libvirtd); raises ZsealError if it may not be read."""
    return RefreshPlan(directory=directory, files=_cached_files(directory), units=_units(manager))


def _session_daemon(runtime: Path) -> int | None:
    for daemon in (_MODULAR, _MONOLITHIC):
        try:
            number = int((runtime / "libvirt" / f"{daemon}.pid").read_text()[:16])
            # the file may outlive its process, and the number may now belong to another one
            if Path(f"/proc/{number}/comm").read_text().strip() == daemon:
                return number
        except (OSError, ValueError):
            continue
    return None


def plan_session_refresh() -> RefreshPlan:
    """Plan for this user's own daemon (qemu:///session)."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    directory = Path(cache) / "libvirt" / "qemu" / "cache" / "capabilities"
    return RefreshPlan(
        directory=directory, files=_cached_files(directory), session_daemon=_session_daemon(Path(runtime))
    )


def _must(answer: CommandResult, what: str) -> None:
    if not answer.ok:
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"systemctl ended with status {answer.status}"
        raise ZsealError(f"cannot {what}: {reason}", hint="run this as root")


def refresh(plan: RefreshPlan, manager: ServiceManager) -> None:
    """Carry out ``plan``.

    The daemon is started again even if deleting files fails. Raises ZsealError if a step fails.
    """
    if plan.units:
        _must(manager.systemctl("stop", *plan.units), "stop libvirt's daemon")
    try:
        if plan.session_daemon is not None:
            os.kill(plan.session_daemon, signal.SIGTERM)
        for file in plan.files:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot clear libvirt's cache: {error.strerror or error}",
            where=str(error.filename or plan.directory),
            hint="run this as root",
        ) from error
    finally:
        if plan.units:
            _must(manager.systemctl("start", *plan.units), "start libvirt's daemon again")

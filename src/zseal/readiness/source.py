"""The sources of facts about a host: the running system, or a captured file tree.

A :class:`HostSource` answers four questions (a file's text, a directory's names, a device's state, a command's output)
and nothing else, so that a live host and a capture look the same to the checks.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from zseal.errors import InputError
from zseal.logs import logger
from zseal.readiness.commands import HostCommand

_LOG = logger(__name__)

# the largest real answers (domain capabilities, a cached QEMU description) are below 1 MiB
MAX_FILE_BYTES = 4 << 20
COMMAND_SECONDS = 20
NOT_FOUND = 127
NOT_STARTED = 126
TIMED_OUT = 124
# Where libvirt's system daemon keeps what it learnt about each QEMU program
LIBVIRT_CACHE = "/var/cache/libvirt/qemu/capabilities"


@dataclasses.dataclass(frozen=True)
class CommandResult:
    """The answer of a command; ``status`` 127 is "not installed", 124 "no answer in time"."""

    status: int
    stdout: str
    stderr: str

    @property
    def installed(self) -> bool:
        """Whether the program was there."""
        return self.status != NOT_FOUND

    @property
    def ok(self) -> bool:
        """Whether it ended with status 0."""
        return self.status == 0


@dataclasses.dataclass(frozen=True)
class DeviceState:
    """Whether a device node exists and this user may open it for reading and writing."""

    exists: bool
    accessible: bool


class HostSource(abc.ABC):
    """Contract: absolute paths as on the host; None or empty if there is nothing, never an exception."""

    @abc.abstractmethod
    def text(self, path: str) -> str | None:
        """Return the text of the file ``path`` (UTF-8, undecodable bytes replaced), or None if it cannot be read."""

    @abc.abstractmethod
    def names(self, path: str) -> tuple[str, ...] | None:
        """Return the sorted names in the directory ``path``, or None if there is no such directory."""

    @abc.abstractmethod
    def device(self, path: str) -> DeviceState | None:
        """Return the state of the device node ``path``, or None if it was not checked."""

    @abc.abstractmethod
    def run(self, command: HostCommand) -> CommandResult | None:
        """Return the answer of ``command``, or None if it was not run."""


def _read_text(path: Path) -> str | None:
    try:
        # sysfs and procfs files show no size: read up to the limit
        with path.open("rb") as stream:
            return stream.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return None


def _names(path: Path) -> tuple[str, ...] | None:
    try:
        return tuple(sorted(entry.name for entry in os.scandir(path)))
    except (OSError, ValueError):
        return None


def run_bounded(arguments: tuple[str, ...], seconds: float = COMMAND_SECONDS) -> CommandResult:
    """Run the program ``arguments`` in the C locale with bounded time and output.

    The process gets a session of its own, which is killed as a whole when ``seconds`` are over.
    """
    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        except FileNotFoundError:
            return CommandResult(NOT_FOUND, "", "")
        except OSError as error:
            return CommandResult(NOT_STARTED, "", error.strerror or str(error))
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = TIMED_OUT
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(MAX_FILE_BYTES).decode("utf-8", "replace"))
    _LOG.debug("%s ended with %d", shlex.join(arguments), status)
    return CommandResult(status, texts[0], texts[1])


class LiveHost(HostSource):
    """The system this program runs on."""

    def text(self, path: str) -> str | None:
        """See :meth:`HostSource.text`."""
        return _read_text(Path(path))

    def names(self, path: str) -> tuple[str, ...] | None:
        """See :meth:`HostSource.names`."""
        return _names(Path(path))

    def device(self, path: str) -> DeviceState | None:
        """See :meth:`HostSource.device`."""
        node = Path(path)
        return DeviceState(exists=node.exists(), accessible=os.access(node, os.R_OK | os.W_OK))

    def run(self, command: HostCommand) -> CommandResult | None:
        """See :meth:`HostSource.run`."""
        program = next((p for p in map(shutil.which, command.programs) if p), None)
        if program is None:
            return CommandResult(NOT_FOUND, "", "")
        result = run_bounded((program, *command.arguments))
        return dataclasses.replace(result, stdout=command.clean(result.stdout), stderr=command.clean(result.stderr))


# the text that represents a device node in a capture
DEVICE_TEXT = {
    DeviceState(exists=True, accessible=True): "accessible\n",
    DeviceState(exists=True, accessible=False): "denied\n",
    DeviceState(exists=False, accessible=False): "missing\n",
}


class CapturedHost(HostSource):
    """A file tree written by ``zseal host capture``, or by hand in the same layout (see docs/hosts.md).

    Files of the host are under their own path. Archives may omit an empty directory, so ``NAME/.keep`` stands for it.
    ``commands/NAME.out``, ``.err`` and ``.status`` contain a command's answer; without any of them it was not run.
    """

    def __init__(self, root: Path) -> None:
        """Use the tree at ``root``; raises InputError if it is not a directory or does not look like a capture."""
        try:
            self._root = root.resolve(strict=True)
        except OSError as error:
            raise InputError(
                f"cannot read the captured tree: {error.strerror or error}",
                where=str(root),
                hint="make one with `zseal host capture DIR` on the host",
            ) from error
        if not self._root.is_dir():
            raise InputError("a captured tree is a directory", where=str(root))
        if not any((self._root / name).is_dir() for name in ("proc", "sys", "commands")):
            raise InputError(
                "not a captured host: the directories proc, sys and commands are missing",
                where=str(root),
                hint="make one with `zseal host capture DIR` on the host",
            )

    def _inside(self, path: str) -> Path | None:
        # a capture may come from anywhere: a link in it must not lead to this computer's own files
        try:
            resolved = (self._root / path.lstrip("/")).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return None
        return resolved if resolved.is_relative_to(self._root) else None

    def _regular(self, path: str) -> Path | None:
        inside = self._inside(path)
        return inside if inside is not None and inside.is_file() else None

    def text(self, path: str) -> str | None:
        """See :meth:`HostSource.text`."""
        inside = self._regular(path)
        return None if inside is None else _read_text(inside)

    def names(self, path: str) -> tuple[str, ...] | None:
        """See :meth:`HostSource.names`."""
        inside = self._inside(path)
        found = None if inside is None else _names(inside)
        return None if found is None else tuple(name for name in found if name != ".keep")

    def device(self, path: str) -> DeviceState | None:
        """See :meth:`HostSource.device`."""
        text = self.text(path)
        if text is None:
            return None
        return next((state for state, word in DEVICE_TEXT.items() if word.strip() == text.strip()), None)

    def run(self, command: HostCommand) -> CommandResult | None:
        """See :meth:`HostSource.run`."""
        parts = [self.text(f"commands/{command.name}.{suffix}") for suffix in ("status", "out", "err")]
        if all(part is None for part in parts):
            return None
        status, out, err = parts
        digits = (status or "0").strip()
        number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 4 else 1
        return CommandResult(number, out or "", err or "")

"""A QEMU process that leaves nothing behind: no socket, no RAM file and no temporary directory ever has a name.

Everything that connects us to QEMU is an inherited descriptor: guest RAM is an anonymous memory file, and the gdb stub,
QMP and the consoles are socket pairs. The kernel kills QEMU when the thread that started it ends, for whatever reason,
so start it in a thread that lives as long as the guest.
"""

from __future__ import annotations

import abc
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from zseal.coredumps import LIMIT, core_dumps_allowed
from zseal.engine.errors import EngineError
from zseal.engine.qemu.commandline import SANDBOX, without_secrets
from zseal.errors import MissingDependencyError
from zseal.logs import logger

_LOG = logger(__name__)

PROGRAM = "qemu-system-s390x"
_STDERR_LIMIT = 1 << 16
_VERSION_SECONDS = 30.0
_SECCOMP = Path("/proc/sys/kernel/seccomp")
NOTHING_MORE: Mapping[str, str] = {}
_TIED = Path(__file__).with_name("die_with_parent.py")


def find_program(program: str | None = None) -> str:
    """Return the path of QEMU for s390x; raises MissingDependencyError if there is none."""
    wanted = program or os.environ.get("ZSEAL_QEMU") or PROGRAM
    found = shutil.which(wanted)
    if found is None:
        raise MissingDependencyError(
            f"{wanted} is needed to run guests and is not installed",
            hint="install QEMU for s390x (Debian: qemu-system-misc, Fedora: qemu-system-s390x)",
        )
    return found


@functools.cache
def program_version(path: str) -> tuple[int, int] | None:
    """Return QEMU's major and minor version; None if its answer has none. Raises EngineError without an answer."""
    try:
        done = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:  # it would not start either
        text = f"QEMU did not start: it did not print its version for {_VERSION_SECONDS:.0f} s"
        raise EngineError(text, where=path) from error
    except (OSError, UnicodeDecodeError):
        return None
    match = re.match(r"QEMU emulator version (\d{1,4})\.(\d{1,4})", done.stdout)
    return (int(match[1]), int(match[2])) if match else None


@functools.cache
def knows_sandbox(path: str) -> bool:
    """Whether the QEMU at ``path`` can give up system calls: it was built with seccomp, and the kernel has that."""
    if not _SECCOMP.is_dir():
        return False
    command = [path, "-sandbox", SANDBOX, "-version"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_VERSION_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False  # nor does it start
    return done.returncode == 0


class Channel:
    """A socket pair: QEMU inherits ``remote``, we keep ``local``."""

    def __init__(self) -> None:
        self.local, self.remote = socket.socketpair()

    @property
    def descriptor(self) -> int:
        """QEMU's descriptor number of its end."""
        return self.remote.fileno()

    def close(self) -> None:
        """Close both ends."""
        self.local.close()
        self.remote.close()


class QemuProcess(abc.ABC):
    """A running QEMU: ``pidfd`` becomes readable when it has ended, ``output`` when ``collect`` has work.

    ``output`` is None if QEMU's messages do not, or no longer, come to us.
    """

    def __init__(self, pid: int, output: int | None) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.output = output

    @abc.abstractmethod
    def collect(self) -> bool:
        """Take QEMU's output; False if no more will come."""

    @abc.abstractmethod
    def messages(self) -> str:
        """Return what QEMU has written to its stdout and stderr so far (the end of it)."""

    @abc.abstractmethod
    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until QEMU has ended and return its exit status (negative: the signal), or None after ``timeout`` s."""

    @abc.abstractmethod
    def kill(self) -> int:
        """End QEMU now and close what belongs to it; returns its exit status."""

    def last_message(self) -> str:
        """Return QEMU's last line, without its own name; skip warnings and advice to ask for help."""
        lines = [line.strip().removeprefix(f"{PROGRAM}: ") for line in self.messages().splitlines()]
        told = [line for line in lines if line and not line.startswith(("Use ", "warning: "))]
        return told[-1] if told else ""

    def send_kill(self) -> None:
        """Kill QEMU without waiting for its end; raises EngineError if that is not allowed."""
        if self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended
        except OSError as error:
            raise EngineError(f"cannot kill QEMU (process {self.pid}): {error.strerror}") from error


class OwnProcess(QemuProcess):
    """A QEMU that this process starts, as a child that ends with the thread that starts it."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        inherit: Sequence[int],
        program: str | None = None,
        environment: Mapping[str, str] = NOTHING_MORE,
    ) -> None:
        """Start it with ``arguments``; ``environment`` is added to ours."""
        path = find_program(program)
        output, stderr = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(stderr, True)
        self._messages = bytearray()
        _LOG.info("starting %s", path)
        _LOG.debug("its arguments: %s", without_secrets(arguments))
        core_limit = "-" if core_dumps_allowed() else str(LIMIT)
        tied = [sys.executable, "-I", "-S", str(_TIED), str(os.getpid()), core_limit]
        try:
            self._process = subprocess.Popen(
                [*tied, path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                pass_fds=list(inherit),
                start_new_session=True,
                env={**os.environ, **environment},
            )
        except OSError as error:
            os.close(output)
            raise EngineError(f"cannot start QEMU: {error.strerror}", where=path) from error
        finally:
            os.close(stderr)
        super().__init__(self._process.pid, output)
        _LOG.debug("QEMU is process %d", self._process.pid)

    def collect(self) -> bool:
        """Take up to 64 KiB of QEMU's output, so that it never waits for the pipe. False if no more will come."""
        if self.output is None:
            return False
        try:
            data = os.read(self.output, _STDERR_LIMIT)
        except BlockingIOError:
            return True
        self._messages += data
        del self._messages[:-_STDERR_LIMIT]
        return bool(data)

    def messages(self) -> str:
        """Return what QEMU has written to its stdout and stderr so far (the last 64 KiB of it)."""
        self.collect()
        return self._messages.decode("utf-8", "replace")

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until QEMU has ended and return its exit status (negative: the signal), or None after ``timeout`` s."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> int:
        """Kill QEMU, collect it and close what belongs to it; returns its exit status."""
        self.send_kill()
        status = self._process.wait()
        self.messages()
        _LOG.debug("QEMU has ended with status %d: %s", status, self.last_message() or "no message")
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self.output is not None:
            os.close(self.output)
            self.output = None
        return status

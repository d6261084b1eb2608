"""The registry of guests: a directory of sockets that belongs to one user.

``$XDG_RUNTIME_DIR/zseal``, or ``/tmp/zseal-UID`` if that is not set; mode 0700, and refused if it belongs to another
user. NAME.sock with mode 0600 is the guest NAME. Sockets are reached through a descriptor of the directory, so that its
path can be longer than the 108 bytes of a socket's address, and is looked up only once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import itertools
import os
import re
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from zseal.errors import InputError
from zseal.guest.control.protocol import ControlError

SUFFIX = ".sock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BACKLOG = 8
_CREDENTIALS = struct.Struct("3i")
_LOCK_SECONDS = 5.0


def check_name(name: str) -> str:
    """Return ``name``; raises InputError if a guest cannot be called that."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"a guest cannot be called {name!r}",
            hint="use 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first",
        )
    return name


def name_from(text: str) -> str:
    """Return a valid name that is as close to ``text`` as possible."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:48]
    return cleaned or "guest"


def directory_path() -> Path:
    """Return the directory of this user's guests, whether it exists or not."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    # after su or sudo it belongs to another user, and nothing of ours belongs there
    with contextlib.suppress(OSError):
        if runtime.is_absolute() and runtime.stat().st_uid == os.geteuid():
            return runtime / "zseal"
    return Path(f"/tmp/zseal-{os.geteuid()}")  # noqa: S108 - owner and mode are checked before it is used


@dataclasses.dataclass(frozen=True)
class Listener:
    """A socket at which a guest can be reached, until ``close``."""

    name: str
    socket: socket.socket
    directory: Directory
    inode: int

    def close(self) -> None:
        """Remove the socket's name and stop listening; a second call has no effect."""
        if self.socket.fileno() < 0:
            return
        # in this order, because the name could otherwise look like a killed guest's and already belong to another
        self.directory.remove(self.name, inode=self.inode)
        self.socket.close()
        self.directory.close()


class Directory:
    """The opened directory of guests; raises ControlError if it cannot be used safely, or NoDirectoryError."""

    def __init__(self, path: Path | None = None, *, create: bool = False) -> None:
        self.path = path or directory_path()
        self._descriptor = _open(self.path, create=create)

    def close(self) -> None:
        """Close it; a second call has no effect."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self._descriptor}/{name}{SUFFIX}"

    def listen(self, name: str, *, numbered: bool = False) -> Listener:
        """Return a listening socket for the guest ``name``, in the place of one without a listener.

        If the name is in use, ``numbered`` takes the first free one of ``name-2``, ``name-3``, …; without it, that
        raises ControlError. The listener owns this directory from then on.
        """
        check_name(name)
        with self._locked():
            if numbered:
                names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
                name = next(each for each in names if not (self._exists(each) and self._alive(each)))
            if self._exists(name):
                if self._alive(name):
                    raise ControlError(
                        f"a guest named {name} is already running", hint="choose another name with `name`"
                    )
                self.remove(name)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            try:
                listening.bind(self._address(name))
                os.chmod(f"{name}{SUFFIX}", 0o600, dir_fd=self._descriptor)
                listening.listen(_BACKLOG)
                return Listener(name, listening, self, self._inode(name))
            except OSError as error:
                listening.close()
                raise ControlError(f"cannot listen for commands: {error.strerror}", where=str(self.path)) from error

    def connect(self, name: str) -> socket.socket:
        """Return a connection to the guest ``name``; raises ControlError if it does not run."""
        check_name(name)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect(self._address(name))
        except OSError as error:
            connection.close()
            if error.errno == errno.ECONNREFUSED:
                self.clean()
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise no_such_guest(name) from None
            raise ControlError(f"cannot reach the guest {name}: {error.strerror}") from error
        return connection

    def names(self) -> list[str]:
        """Return the names of guests that may run, in order."""
        entries = os.listdir(self._descriptor)  # noqa: PTH208 - of the descriptor, not of what the path names now
        found = [entry.removesuffix(SUFFIX) for entry in entries if entry.endswith(SUFFIX)]
        return sorted(name for name in found if _NAME.fullmatch(name))

    def clean(self) -> list[str]:
        """Remove the sockets that killed guests left behind, and return their names."""
        with self._locked():
            stale = [name for name in self.names() if not self._alive(name)]
            for name in stale:
                self.remove(name)
        return stale

    def remove(self, name: str, *, inode: int | None = None) -> None:
        """Remove the socket of ``name`` (only that with ``inode``, if given) if it exists."""
        with contextlib.suppress(FileNotFoundError):
            if inode is None or self._inode(name) == inode:
                os.unlink(f"{name}{SUFFIX}", dir_fd=self._descriptor)

    def _inode(self, name: str) -> int:
        return os.stat(f"{name}{SUFFIX}", dir_fd=self._descriptor, follow_symlinks=False).st_ino

    def _exists(self, name: str) -> bool:
        try:
            self._inode(name)
        except FileNotFoundError:
            return False
        return True

    def _alive(self, name: str) -> bool:
        """Whether a process listens, even one that is too busy to accept another connection."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(self._address(name))
            except OSError as error:
                return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from removing and creating names meanwhile."""
        limit = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise ControlError(
                        "another program has locked the guests' directory", where=str(self.path)
                    ) from None
                time.sleep(0.01)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def peer_credentials(connection: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end of a Unix socket, as the kernel knows them."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def listen(name: str, *, numbered: bool = False) -> Listener:
    """Return a listening socket for the guest ``name`` of this user, as :meth:`Directory.listen` does."""
    directory = Directory(create=True)
    try:
        directory.clean()
        return directory.listen(name, numbered=numbered)
    except BaseException:
        directory.close()
        raise


def no_such_guest(name: str) -> ControlError:
    """Return the error for a guest ``name`` that does not run."""
    return ControlError(f"no guest named {name} is running", hint="`list_guests()` shows those that are")


class NoDirectoryError(ControlError):
    """No guest has run yet."""


def _open(path: Path, *, create: bool) -> int:
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NoDirectoryError("there is no directory of guests", where=str(path)) from error
    except OSError as error:
        raise ControlError(f"cannot use the guests' directory: {error.strerror}", where=str(path)) from error
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(descriptor)
        raise ControlError(
            "the guests' directory is open to other users",
            where=str(path),
            hint="make it accessible only to you, with mode 0700",
        )
    return descriptor

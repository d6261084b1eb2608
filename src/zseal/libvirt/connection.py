"""Connections to libvirt: in this process (``qemu:///embed``), or to a daemon.

The in-process driver is the whole of libvirt's QEMU driver without a daemon. It keeps everything below one directory
and needs a running event loop.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qs, quote, urlsplit

from zseal.errors import InputError, MissingDependencyError, UsageError
from zseal.libvirt.module import libvirt_module
from zseal.logs import logger

_LOG = logger(__name__)

EMBED = "qemu:///embed"
"""libvirt's QEMU driver inside this process; it needs no daemon."""
_PATHS = ("/embed", "/session", "/system")
_LOG_VARIABLE = "LIBVIRT_LOG_OUTPUTS"
_loop_lock = threading.Lock()
_loop_running = False

# Settings that need no other user, no daemon, and no rights over this computer.
_CONFIGURATION = """\
user = "+{user}"
group = "+{group}"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""


def _turn_event_loop(libvirt: ModuleType) -> None:
    """Run libvirt's event loop in a thread of its own; once in a process, before the first connection."""
    global _loop_running
    with _loop_lock:
        if _loop_running:
            return
        libvirt.virEventRegisterDefaultImpl()

        def turn() -> None:
            while True:
                libvirt.virEventRunDefaultImpl()

        threading.Thread(target=turn, name="libvirt-events", daemon=True).start()
        _loop_running = True


class Connection:
    """An open connection; ``libvirt`` is the module, ``handle`` its connection object."""

    def __init__(
        self, libvirt: ModuleType, handle: object, uri: str, root: Path | None, *, temporary: bool = False
    ) -> None:
        self.libvirt = libvirt
        self.handle = handle
        self.uri = uri
        self.root = root
        self.temporary = temporary

    @property
    def embedded(self) -> bool:
        """Whether the driver is in this process."""
        return self.root is not None

    def security_models(self) -> list[str]:
        """The security models with which the daemon confines QEMU."""
        from lxml import etree

        capabilities = etree.fromstring(self.handle.getCapabilities())  # type: ignore[attr-defined]
        return [model.text or "" for model in capabilities.iterfind("host/secmodel/model")]


def is_system(uri: str) -> bool:
    """Whether ``uri`` is libvirt's system daemon, which has networks."""
    return urlsplit(uri).path == "/system"


def _is_embedded(uri: str) -> bool:
    return urlsplit(uri).scheme == "qemu" and urlsplit(uri).path == "/embed"


@contextlib.contextmanager
def open_connection(uri: str = EMBED) -> Iterator[Connection]:
    """Open ``qemu:///embed`` (with ``?root=DIR``, or in a directory of this process), ``…/session`` or ``…/system``.

    Raises UsageError or InputError if libvirt cannot, MissingDependencyError without libvirt-python.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("qemu", "qemu+unix") or parts.netloc or parts.path not in _PATHS:
        choices = ", ".join(f"qemu://{path}" for path in _PATHS)
        raise UsageError(f"not a libvirt that zseal can run domains with: {uri}", hint=f"it must be one of {choices}")
    with contextlib.ExitStack() as undo:
        root, temporary = None, False
        if _is_embedded(uri):
            given = parse_qs(urlsplit(uri).query).get("root")
            temporary = not given
            root = Path(given[0]).resolve() if given else _own_root()
            _prepare_root(root)
            uri = f"{EMBED}?root={quote(str(root))}"
            # otherwise libvirt's own log goes to stderr
            os.environ.setdefault(_LOG_VARIABLE, f"3:file:{root / 'libvirt.log'}")
        libvirt = libvirt_module()
        _turn_event_loop(libvirt)
        _LOG.info("opening the libvirt connection %s", uri)
        try:
            handle = libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise _open_error(str(error), uri) from error
        undo.callback(handle.close)
        yield Connection(libvirt, handle, uri, root, temporary=temporary)


@functools.cache
def _own_root() -> Path:
    """The directory of this process's libvirt, which can have only one; it is removed when the process ends."""
    root = Path(tempfile.mkdtemp(prefix="zseal-libvirt-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def _prepare_root(root: Path) -> None:
    configuration = root / "etc" / "qemu.conf"
    if not configuration.exists():
        configuration.parent.mkdir(parents=True, exist_ok=True)
        configuration.write_text(_CONFIGURATION.format(user=os.getuid(), group=os.getgid()), encoding="utf-8")


def _open_error(reason: str, uri: str) -> InputError | MissingDependencyError:
    if "libvirt-qemu" in reason or "Failed to parse user" in reason:
        user_hint = "install libvirt-daemon-system (Debian), which creates it, or do not run as root"
        return MissingDependencyError("libvirt needs a user of its own when it runs as root", hint=user_hint)
    if "no connection driver available" in reason or "not find" in reason:
        driver_hint = "install libvirt-daemon-driver-qemu (Debian, Fedora)"
        return MissingDependencyError("libvirt's QEMU driver is not installed", hint=driver_hint)
    if "already open with path" in reason:
        return InputError("this process has already opened libvirt in another directory", where=uri)
    hint: str | None = None
    if "Permission denied" in reason:
        hint = "only root and the group libvirt may use that daemon"
    elif urlsplit(uri).path == "/session" and os.geteuid() == 0:
        hint = "root has no session: use qemu:///system, or leave `uri` out"
    elif not _is_embedded(uri):
        hint = "start libvirtd (or virtqemud), or leave `uri` out: zseal then needs no daemon"
    return InputError(f"libvirt cannot connect: {_one_line(reason)}", where=uri, hint=hint)


_START_HINTS = {
    "master-key.aes": "QEMU runs as your user, who must be in the group of the daemon's user (Debian: libvirt-qemu); "
    "or use qemu:///session or qemu:///embed",
    "is not active": "virsh net-start NAME starts a network",
    "the cause is unknown": "libvirt's log may say more; in a container or chroot /sys has to be mounted",
    "Network not found": "virsh net-list --all lists all networks",
}


def start_error(reason: str, where: str) -> InputError:
    """Return the error for a domain that libvirt did not start, with QEMU's own words if QEMU ended."""
    text = _one_line(reason)
    hint = next((hint for words, hint in _START_HINTS.items() if words in text), None)
    _, found, last_words = text.partition("qemu-system-s390x: ")
    if found:
        return InputError(f"QEMU ended immediately: {_OPTION.sub('', last_words)}", where=where, hint=hint)
    return InputError(f"libvirt does not start the domain: {text}", where=where, hint=hint)


_OPTION = re.compile(r"^-\w+ \{.*?\}: ")
"""The option that QEMU's message is about, in JSON: long, and not the user's words."""


def _one_line(text: str) -> str:
    return " ".join(text.split())

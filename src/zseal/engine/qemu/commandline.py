"""Turns the description of a machine into QEMU's arguments."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from zseal.arch.storage import MIB
from zseal.engine.machine import MachineConfig
from zseal.engine.memoryfile import LARGE_PAGE
from zseal.engine.qemu.devices import device_arguments
from zseal.linux import kernel_file

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""QEMU gives up becoming another user, starting programs and changing its priority: it needs none of that."""
_NOTIFIED_IN_A_THREAD = tuple(f"virtio-{kind}-ccw" for kind in ("blk", "net", "rng", "scsi", "serial"))
_VECTORS_RIGHT = (10, 0)
_MONITORS_ARE_OBJECTS = (11, 1)
_SECRET = re.compile(r"""\b((?:data|password|passwd|secret)"?\s*[=:]\s*"?)[^,"]*""")


def wrong_features(version: tuple[int, int] | None) -> tuple[str, ...]:
    """Return the CPU features that a QEMU of ``version`` computes wrongly: vector instructions before 10.0.

    VECTOR CHECKSUM of QEMU 7.2 gives wrong sums, and Linux checks TCP with it since 6.9: no connection is accepted.
    10.0 is known to be right. A kernel that needs vector instructions reports that, and ``-- -cpu max`` turns them on.
    """
    return () if version is None or version >= _VECTORS_RIGHT else ("vx", "vxeh", "vxeh2")


def cpu_model(version: tuple[int, int] | None, *, audited: bool = False) -> str:
    """Return the CPU for a QEMU of ``version``, with all features that it computes correctly.

    It has no PCI if devices are ``audited``, because zseal cannot observe notifications of PCI devices.
    """
    off = (*wrong_features(version), *(("zpci",) if audited else ()))
    return ",".join(("max", *(f"{feature}=off" for feature in off)))


@dataclasses.dataclass(frozen=True)
class Descriptors:
    """The descriptors that QEMU inherits: guest RAM, QMP, the consoles and, for traps, the gdb stub.

    With ``plugin``, the file that watches calls and (with ``notifications``) notifications, also its socket and a
    second QMP connection; ``queues`` is the file that it shares to check virtio queues itself, and ``lock`` whether it
    may watch QEMU's lock.
    """

    memory: int
    qmp: int
    terminal: int
    line_mode: int | None
    gdb: int | None
    plugin: Path | None = None
    notifications: bool = True
    lock: bool = True
    plugin_socket: int | None = None
    queues: int | None = None
    monitor: int | None = None


def arguments(
    config: MachineConfig,
    inherited: Descriptors,
    *,
    cpu: str = "max",
    version: tuple[int, int] | None = None,
    sandbox: bool = False,
    core_dumps: bool = False,
) -> list[str]:
    """Return the command line of a QEMU of ``version``, without the program's name; the machine is created stopped.

    With ``sandbox`` QEMU gives up system calls that it does not need; unless ``core_dumps``, no dump of QEMU has the
    guest's memory.
    """
    memory = {
        "qom-type": "memory-backend-file",
        "id": "ram",
        "mem-path": f"/proc/self/fd/{inherited.memory}",
        "share": True,
        "align": LARGE_PAGE,
        "dump": core_dumps,
        "size": config.memory,
    }
    out = ["-nodefaults", "-no-user-config", "-display", "none"]
    out += ["-name", f"{config.name},debug-threads=on", "-uuid", str(config.uuid)]
    machine = f"{config.machine_type},memory-backend=ram,dump-guest-core={'on' if core_dumps else 'off'}"
    out += ["-machine", machine, "-accel", "tcg", "-cpu", cpu]
    out += ["-m", f"{config.memory // MIB}M", "-smp", str(config.cpus), "-object", json.dumps(memory), "-S"]
    if sandbox:
        out += ["-sandbox", SANDBOX]
    # QEMU and its RAM stay after a guest's end, to be inspected; a reset waits until protection is dropped.
    out += ["-action", "reboot=shutdown,shutdown=pause,panic=pause,watchdog=pause"]
    out += _control("qmp", inherited.qmp, version)
    if inherited.gdb is not None:
        out += ["-chardev", f"socket,id=gdb,fd={inherited.gdb}", "-gdb", "chardev:gdb"]
    if inherited.plugin is not None:
        options = f"socket={inherited.plugin_socket},entry={kernel_file.ENTRY}"
        options += "" if inherited.notifications else ",notifications=off"
        options += "" if inherited.lock else ",lock=off"
        if inherited.queues is not None:
            options += f",queues={inherited.queues},storage={inherited.memory}"
        out += ["-plugin", f"file={str(inherited.plugin).replace(',', ',,')},{options}"]
        out += _control("monitor", inherited.monitor, version)
    out += ["-chardev", f"socket,id=terminal,fd={inherited.terminal}", "-device", "sclpconsole,chardev=terminal"]
    if inherited.line_mode is not None:
        out += ["-chardev", f"socket,id=line,fd={inherited.line_mode}", "-device", "sclplmconsole,chardev=line"]
    if config.kernel is not None:
        out += ["-kernel", f"/proc/self/fd/{config.kernel}"]
    if config.ramdisk is not None:
        out += ["-initrd", f"/proc/self/fd/{config.ramdisk}"]
    if config.cmdline is not None:
        out += ["-append", config.cmdline]
    if config.audited:
        for driver in _NOTIFIED_IN_A_THREAD:
            out += ["-global", f"{driver}.ioeventfd=off"]
    return [*out, *device_arguments(config), *config.extra]


def _control(name: str, descriptor: int | None, version: tuple[int, int] | None) -> list[str]:
    """Return the arguments for a QMP connection; -mon is deprecated since monitors are objects."""
    monitor = ["-mon", f"chardev={name},mode=control"]
    if version is not None and version >= _MONITORS_ARE_OBJECTS:
        monitor = ["-object", f"monitor-qmp,id={name}-monitor,chardev={name}"]
    return ["-chardev", f"socket,id={name},fd={descriptor}", *monitor]


def without_secrets(arguments: Sequence[str]) -> str:
    """Return QEMU's ``arguments`` as a line for the log: passwords, secrets and kernel parameters are left out."""
    shown = []
    for before, argument in itertools.pairwise(["", *arguments]):
        shown.append("…" if before in ("-append", "--append") else _SECRET.sub(r"\1…", argument))
    return shlex.join(shown)

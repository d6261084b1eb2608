"""The extra QEMU arguments that zseal refuses.

Real hosts block some QEMU features for protected guests, and the reasons apply here too: a guest that needs one of
these would not run, or would lose data, on hardware. The texts in quotes are QEMU's own. Other options would change
what zseal itself set up.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from zseal.errors import UsageError
from zseal.messages import qemu

Properties: TypeAlias = Mapping[str, str]
_MOUNTS = Path("/proc/self/mounts")
_HUGE_PAGE_MOUNT = "/dev/hugepages"  # systemd's mount point

_IMPLIED_KEYS = {"device": "driver", "object": "qom-type", "machine": "type", "m": "size"}
_ALIASES = {"M": "machine", "memory": "m"}


@dataclasses.dataclass(frozen=True)
class Fence:
    """``option`` (without dashes) is refused if ``applies`` to its properties, because of ``reason``."""

    option: str
    applies: Callable[[Properties], bool]
    reason: str
    hint: str


def _always(_properties: Properties) -> bool:
    return True


def _driver(pattern: str) -> Callable[[Properties], bool]:
    return lambda properties: re.match(pattern, properties.get("driver", "")) is not None


def _has(*keys: str) -> Callable[[Properties], bool]:
    return lambda properties: any(key in properties for key in keys)


def _huge_pages(properties: Properties) -> bool:
    """Whether a memory back end uses huge pages."""
    if not properties.get("qom-type", "").startswith("memory-backend"):
        return False
    if properties.get("hugetlb", "off").lower() in ("on", "yes", "true", "y") or "hugetlbsize" in properties:
        return True
    return _on_huge_pages(properties.get("mem-path", ""))


def _on_huge_pages(path: str) -> bool:
    """Whether ``path`` is on a file system of huge pages."""
    try:
        mounts = [line.split(" ") for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        mounts = []
    places = {_HUGE_PAGE_MOUNT, *(mount[1] for mount in mounts if len(mount) > 2 and mount[2] == "hugetlbfs")}
    return any(PurePosixPath(path).is_relative_to(place) for place in places)


_BALLOON = (
    "a protected guest cannot have a memory balloon: discarding memory is off while it is protected, because a page "
    "that was given away comes back without its content and fails the integrity check"
)
_HOT_PLUG = (
    "a protected guest's memory cannot grow: devices that add memory need to discard it again, and QEMU says "
    f'"{qemu.RAM_DISCARD.text}" when it protects the guest'
)
_HUGE_PAGES = (
    "a protected guest's memory cannot be huge pages, the ultravisor keeps track of every 4 KiB; QEMU says "
    f'"{qemu.HUGE_PAGES.text}"'
)
_MIGRATION = (
    "a protected guest cannot be migrated, saved or loaded: its registers and keys never leave the ultravisor; "
    f'QEMU says "{qemu.NOT_MIGRATABLE.text}"'
)
_PASSTHROUGH = "devices cannot be passed through to a protected guest: they cannot access its private memory"
_CRYPTO = (
    "crypto adapters are passed through to protected guests only by IBM z16 and later machines; "
    "this software machine has none"
)

_MONITOR = (
    "a protected guest cannot have another QEMU monitor than zseal's, which could migrate it or give it devices that "
    "protected guests cannot have, without any check"
)


def _for_monitor(properties: Properties) -> bool:
    return properties[""].startswith("mon:")


def _monitor_object(properties: Properties) -> bool:
    return properties.get("qom-type", "").startswith("monitor-")


FENCES: Sequence[Fence] = (
    Fence("device", _driver("virtio-balloon"), _BALLOON, "remove it"),
    Fence("balloon", _always, _BALLOON, "remove it"),
    Fence("device", _driver("virtio-p?mem|pc-dimm|nvdimm"), _HOT_PLUG, "give all memory from the start: `memory`"),
    Fence("m", _has("maxmem", "slots"), _HOT_PLUG, "give all memory from the start: `memory`"),
    Fence("object", _huge_pages, _HUGE_PAGES, "remove it"),
    Fence("mem-path", lambda properties: _on_huge_pages(properties[""]), _HUGE_PAGES, "remove it"),
    Fence("incoming", _always, _MIGRATION, "start the guest from its image"),
    Fence("loadvm", _always, _MIGRATION, "start the guest from its image"),
    Fence("only-migratable", _always, _MIGRATION, "remove it"),
    *(Fence(option, _always, _MONITOR, "use `GuestControl`") for option in ("monitor", "mon", "qmp", "qmp-pretty")),
    *(Fence(option, _for_monitor, _MONITOR, "remove mon:") for option in ("serial", "parallel")),
    Fence("object", _monitor_object, _MONITOR, "use `GuestControl`"),
    Fence("device", _driver("vfio-ap"), _CRYPTO, "remove it"),
    Fence("device", _driver("vfio-"), _PASSTHROUGH, "use a virtio device with iommu_platform=on"),
)
"""The features that QEMU refuses a protected guest, and the alternatives; the first that applies is reported."""

_UNSEEN = "the I/O audit cannot observe how PCI devices are notified"

UNAUDITED: Sequence[Fence] = (
    Fence("device", _driver(".*-pci"), _UNSEEN, 'give the device whose name ends in -ccw, or choose `io_policy="off"`'),
)
"""The devices that cannot be audited."""

_SET_BY_ZSEAL = "zseal sets this itself"
_OWN = {
    "m": "use `memory`",
    "mem-path": "remove it",
    "mem-prealloc": "remove it",
    "smp": "use `cpus`",
    "kernel": "the image is the kernel",
    "initrd": "the ramdisk is part of the image",
    "append": "the kernel parameters are part of the image",
    "accel": "guests run on QEMU's TCG",
    "enable-kvm": "guests run on QEMU's TCG",
    "gdb": "the ultravisor uses the debug stub",
    "s": "the ultravisor uses the debug stub",
    "daemonize": "remove it",
    "readconfig": "write the options out, so that they can be checked",
    "action": "remove it",
    "watchdog-action": "remove it",
    "no-shutdown": "remove it",
    "no-reboot": "remove it",
}
_OWN_MACHINE_PROPERTIES = ("memory-backend", "accel", "kernel", "initrd", "append")

CONFLICTS: Sequence[Fence] = (
    *(Fence(option, _always, _SET_BY_ZSEAL, hint) for option, hint in _OWN.items()),
    Fence("machine", lambda properties: "type" in properties, _SET_BY_ZSEAL, "use `machine_type`"),
    Fence("machine", _has(*_OWN_MACHINE_PROPERTIES), _SET_BY_ZSEAL, "remove that property"),
)
"""The options that zseal sets itself, for protected and for plain guests."""


def options(arguments: Sequence[str]) -> Iterator[tuple[str, str, Properties]]:
    """Yield each option of QEMU ``arguments`` as (name, value as written, properties).

    The property ``""`` is the whole value; a value without a name and ``=`` belongs to the option's implied key.
    """
    for argument, following in itertools.pairwise([*arguments, ""]):
        if argument.startswith("-") and len(argument) > 1:
            name = argument.lstrip("-")
            name = _ALIASES.get(name, name)
            value = "" if following.startswith("-") else following
            yield name, f"{argument} {value}".rstrip(), _properties(name, value)


def _properties(name: str, value: str) -> Properties:
    found = {"": value}
    if value.startswith("{"):
        try:
            members = json.loads(value)
        except ValueError:
            return found  # QEMU will report it
        if isinstance(members, dict):
            on_off = {True: "on", False: "off"}
            found |= {str(key): on_off[item] if isinstance(item, bool) else str(item) for key, item in members.items()}
        return found
    parts = [part.replace("\0", ",") for part in value.replace(",,", "\0").split(",")]
    for position, part in enumerate(parts):
        key, equals, text = part.partition("=")
        if not equals and position == 0:
            key, text = _IMPLIED_KEYS.get(name, ""), part
        if key:
            found[key] = text if equals or text else "on"
    return found


def check_arguments(arguments: Sequence[str], *, protected: bool, audited: bool = False) -> None:
    """Raise UsageError if ``arguments`` ask for what the guest cannot have, with the reason and the remedy."""
    fences = [*(FENCES if protected else ()), *(UNAUDITED if audited else ()), *CONFLICTS]
    for name, written, properties in options(arguments):
        for fence in fences:
            if fence.option == name and fence.applies(properties):
                raise UsageError(fence.reason, where=written, hint=fence.hint)

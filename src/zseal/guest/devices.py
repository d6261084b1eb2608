"""Reads disks and networks of a guest from the user's text; chooses the disk from which it boots."""

from __future__ import annotations

import dataclasses
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zseal.engine.devices import Disk, HostForward, UserNetwork
from zseal.errors import InputError, UsageError

_SWITCH = {"on": True, "off": False, "": True}
_FORWARD = re.compile(
    r"(?:(?P<protocol>\w+)?:(?P<host>[^:]*):)?(?P<host_port>\d{1,5})-(?:(?P<guest>[^:]*):)?(?P<guest_port>\d{1,5})"
)
_FORWARD_HINT = "use a value such as hostfwd=tcp:127.0.0.1:2222-:22"

_BOOT_RECORDS = (
    (0, b"zIPL"),  # zipl's record in the first sector of a SCSI or virtio disk
    (0, bytes.fromhex("c9d7d3f1")),  # "IPL1" in EBCDIC: a disk laid out as a DASD
    (0x8001, b"CD001"),  # an ISO 9660 file system, with an El Torito entry if it is bootable
)
"""The marks that QEMU's firmware (pc-bios/s390-ccw) recognises on a disk, by place in the raw image."""


def _options(what: str, text: str, known: Mapping[str, str], hint: str) -> tuple[str, list[tuple[str, str]]]:
    """Split ``FIRST,name=value,…`` (``,,`` is a comma) and check the names."""
    first, *parts = (part.replace("\0", ",") for part in text.replace(",,", "\0").split(","))
    found = []
    for part in parts:
        name, equals, value = part.partition("=")
        kind = known.get(name)
        if kind is None or (kind == "switch" and value not in _SWITCH) or (kind == "value" and not (equals and value)):
            raise UsageError(f"the {what} has no option {part!r}", where=first, hint=hint)
        found.append((name, value))
    return first, found


def parse_disk(text: str) -> Disk:
    """Return the disk of ``FILE[,format=F][,readonly[=on|off]][,iommu=on|off][,bootindex=N]``; ``,,`` is a comma.

    Raises UsageError for unknown options, InputError if the file cannot be read.
    """
    known = {"format": "value", "readonly": "switch", "iommu": "switch", "bootindex": "value"}
    path, given = _options("disk", text, known, "use format=, readonly, bootindex=, iommu=off")
    values = {"format": "raw", "readonly": "off", "iommu": "on", "bootindex": "", **dict(given)}
    if values["bootindex"] and not re.fullmatch(r"\d{1,6}", values["bootindex"]):
        raise UsageError(f"bootindex must be a number, not {values['bootindex']!r}", where=path)
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise InputError(f"cannot use the disk: {error.strerror}", where=path) from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise InputError("a disk must be a file or a block device", where=path)
    return Disk(
        path,
        values["format"],
        read_only=_SWITCH[values["readonly"]],
        iommu=_SWITCH[values["iommu"]],
        boot_index=int(values["bootindex"]) if values["bootindex"] else None,
    )


def parse_network(text: str) -> UserNetwork:
    """Return the network of ``user[,hostfwd=FORWARD]…[,mac=M][,restrict[=on|off]][,iommu=on|off]``.

    A forward is written as in QEMU, ``[tcp|udp]:[HOST-ADDRESS]:HOST-PORT-[GUEST-ADDRESS]:GUEST-PORT``; without a host
    address, only this computer can connect. Raises UsageError.
    """
    known = {"hostfwd": "value", "mac": "value", "restrict": "switch", "iommu": "switch"}
    kind, given = _options("network", text, known, "use hostfwd=, mac=, restrict, iommu=off")
    if kind != "user":
        raise UsageError(f"there is no network of the kind {kind!r}", hint="use `networks=user`")
    values = {"restrict": "off", "iommu": "on", **dict(given)}
    return UserNetwork(
        forwards=tuple(_forward(value) for name, value in given if name == "hostfwd"),
        mac=values["mac"].lower() if "mac" in values else None,
        restrict=_SWITCH[values["restrict"]],
        iommu=_SWITCH[values["iommu"]],
    )


def _forward(text: str) -> HostForward:
    match = _FORWARD.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} does not name the ports to forward", hint=_FORWARD_HINT)
    return HostForward(
        host_port=int(match["host_port"]),
        guest_port=int(match["guest_port"]),
        protocol=match["protocol"] or "tcp",
        host=match["host"] or "127.0.0.1",
        guest=match["guest"] or "",
    )


def with_boot_disk(disks: Iterable[Disk]) -> tuple[Sequence[Disk], Disk]:
    """Return ``disks`` with one to boot from (by boot index, otherwise the first), and that disk.

    Raises UsageError if there is none, InputError if nothing bootable is on it.
    """
    found = list(disks)
    if not found:
        raise UsageError("there is nothing to boot", hint="give an image, or a bootable disk with `disks`")
    if all(disk.boot_index is None for disk in found):
        found[0] = dataclasses.replace(found[0], boot_index=0)
    first = min((disk for disk in found if disk.boot_index is not None), key=lambda disk: disk.boot_index or 0)
    _check_bootable(first)
    return tuple(found), first


def _check_bootable(disk: Disk) -> None:
    """Raise InputError if the firmware would find nothing; only raw disks can be checked."""
    if disk.format != "raw":
        return
    try:
        with Path(disk.path).open("rb") as stream:
            for place, magic in _BOOT_RECORDS:
                stream.seek(place)
                if stream.read(len(magic)) == magic:
                    return
            stream.seek(0)
            format_hint = " (it is a qcow2 file: add ,format=qcow2)" if stream.read(4) == b"QFI\xfb" else ""
    except OSError as error:
        raise InputError(f"cannot read the disk: {error.strerror}", where=disk.path) from error
    raise InputError(
        f"the disk has no boot record of zipl{format_hint}",
        where=disk.path,
        hint="install an image with zipl in a guest first, or give the image itself",
    )

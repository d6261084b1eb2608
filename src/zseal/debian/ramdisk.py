"""Small initial ramdisks: the "newc" cpio archive that Linux unpacks, and a busybox system in one."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_S_IFDIR, _S_IFREG, _S_IFCHR = 0o040000, 0o100000, 0o020000


@dataclass(frozen=True)
class Entry:
    """One file of an archive: ``mode`` with its type bits, ``device`` is (major, minor) of a character device."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """Return a directory that everyone may enter."""
    return Entry(name, _S_IFDIR | 0o755)


def file(name: str, data: bytes, *, executable: bool = False) -> Entry:
    """Return a regular file."""
    return Entry(name, _S_IFREG | (0o755 if executable else 0o644), data)


def character_device(name: str, major: int, minor: int) -> Entry:
    """Return a character device node."""
    return Entry(name, _S_IFCHR | 0o600, device=(major, minor))


def newc(entries: Iterable[Entry]) -> bytes:
    """Return the cpio archive in the "newc" format (ASCII headers of 110 bytes, members padded to 4 bytes).

    Equal entries give equal bytes: owner and times are zero.
    """
    out = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        is_directory = entry.mode & 0o170000 == _S_IFDIR
        fields = (
            number,
            entry.mode,
            0,  # uid
            0,  # gid
            2 if is_directory else 1,  # links
            0,  # time
            len(entry.data),
            0,  # device of the file system
            0,
            entry.device[0],
            entry.device[1],
            len(name),
            0,  # checksum: none in this variant
        )
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4)
        out += entry.data
        out += bytes(-len(out) % 4)
    return bytes(out)


def busybox_ramdisk(busybox: Path, init: str, *, modules: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """Return a compressed ramdisk that runs the shell script ``init`` with busybox.

    Modules are in /modules in load order, numbered, so that ``for m in /modules/*; do insmod $m; done`` loads them.
    """
    entries = [directory(name) for name in ("bin", "dev", "proc", "sys", "tmp", "modules")]
    entries.append(character_device("dev/console", 5, 1))
    entries.append(character_device("dev/null", 1, 3))
    entries.append(file("bin/busybox", busybox.read_bytes(), executable=True))
    entries.append(file("bin/sh", b'#!/bin/busybox sh\nexec /bin/busybox sh "$@"\n', executable=True))
    entries.extend(file(f"modules/{number:02}-{name}", data) for number, (name, data) in enumerate(modules))
    entries.append(file("init", init.encode(), executable=True))
    return gzip.compress(newc(entries), compresslevel=6, mtime=0)

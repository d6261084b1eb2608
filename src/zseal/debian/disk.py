"""A Debian root disk for s390x guests, made without root rights and without s390x software on this computer.

Packages are fetched and unpacked here; a plain guest then boots Debian's kernel and lets their own scripts configure
them, as the second stage of debootstrap does. The result is the system that ``debootstrap --variant=minbase`` installs,
with systemd and a login prompt, in one ext4 partition labelled ``root``. It is kept in the cache and copied from there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zseal.arch.storage import MIB
from zseal.debian.archive import DebianArchive, DebianError, KernelFiles
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.debian.scripts import CONFIGURE, CONFIGURE_INIT, DONE, LINKS, ROOT_INIT, SETUP
from zseal.debian.unpack import Owner, unpack
from zseal.engine.devices import Disk
from zseal.errors import InputError, MissingDependencyError, OutputError, UsageError
from zseal.files import output_exists
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.progress import NoProgress, Progress

FORMAT = 2
"""Part of the cache's key: raise it if a change of the code, not of the scripts, changes the disks."""
PACKAGES = ("?essential", "apt", "login", "passwd", "mount", "systemd-sysv", "udev", "kmod")
CMDLINE = "root=LABEL=root console=ttysclp0 swiotlb=16384 audit=0"
"""Kernel parameters to seal with: the ramdisk's root, the console, 32 MiB of bounce buffers, no audit log."""
MIN_SIZE = 512 * MIB
DEFAULT_SIZE = 2048 * MIB

_MEMORY = 1024 * MIB
_CONFIGURE_SECONDS = 1800.0
_PARTITION = MIB  # where the partition begins
_SECTOR = 512
_ROOT_MODULES = ("virtio_blk", "crc32c_generic", "ext4")
_DISK_MODULES = ("virtio_net", "virtio-rng", "virtio_console", "uvdevice", "autofs4", "overlay", "loop", "dm-crypt")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NETWORK = """[Match]
Name=e*

[Network]
DHCP=yes
"""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The content of the disk; ``size`` is in bytes, ``packages`` come in addition to the base system.

    The kernel is that of ``kernel_suite``, which is ``suite`` unless another is named.
    """

    suite: str = "trixie"
    packages: Sequence[str] = ()
    size: int = DEFAULT_SIZE
    hostname: str = "debian"
    kernel_suite: str = ""

    def __post_init__(self) -> None:
        for name in (self.suite, self.kernel_suite or self.suite, *self.packages):
            if not _NAME.fullmatch(name):
                raise UsageError(f"{name!r} is not the name of a Debian suite or package")
        if not _HOST_NAME.fullmatch(self.hostname):
            raise UsageError(f"{self.hostname!r} is not a host name")
        if self.size < MIN_SIZE or self.size % MIB:
            raise UsageError(f"the disk needs whole MiB, at least {MIN_SIZE // MIB}")

    def key(self, kernel: KernelFiles) -> str:
        """Return what distinguishes this recipe from all others."""
        parts = [FORMAT, PACKAGES, _ROOT_MODULES, _DISK_MODULES, CONFIGURE, CONFIGURE_INIT, LINKS, _NETWORK]
        text = json.dumps([*parts, dataclasses.astuple(self), kernel.release])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class DebianDisk:
    """A finished ``disk`` in the cache (copy it before use), with the ``kernel`` and ``ramdisk`` to seal for it."""

    disk: Path
    kernel: Path
    ramdisk: bytes

    def copy_disk(self, target: Path, *, overwrite: bool = False) -> None:
        """Copy the disk to ``target``, holes as holes; raises OutputError."""
        if not overwrite and (target.exists() or target.is_symlink()):
            raise output_exists(target)
        command: list[str | Path] = [
            "cp",
            "--reflink=auto",
            "--sparse=always",
            "--no-preserve=mode",
            "--",
            self.disk,
            target,
        ]
        _run(command, "copying the disk")


def debian_disk(recipe: Recipe, *, cache: Path | None = None, progress: Progress | None = None) -> DebianDisk:
    """Return the disk of ``recipe``, from the cache or built now, which takes a minute or two.

    Root's password is empty. Raises ZsealError if packages cannot be fetched, a program is missing, or the packages'
    scripts fail.
    """
    progress = progress or NoProgress()
    archive = DebianArchive(recipe.suite, cache=cache, progress=progress.share)
    progress.step(f"Debian {recipe.kernel_suite or recipe.suite}: kernel and busybox")
    kernels = DebianArchive(recipe.kernel_suite or recipe.suite, cache=cache, progress=progress.share)
    kernel, busybox = kernels.kernel(), kernels.busybox()
    place = archive.directory(
        f"disk-{recipe.key(kernel)}", lambda new: _Builder(recipe, archive, kernel, busybox, progress).build(new)
    )
    return DebianDisk(place / "disk.img", kernel.kernel, root_ramdisk(kernel, busybox))


def root_ramdisk(kernel: KernelFiles, busybox: Path) -> bytes:
    """Return a ramdisk that mounts the ``root=`` of the kernel parameters and goes on with its init."""
    return busybox_ramdisk(busybox, ROOT_INIT, modules=_modules(kernel, _ROOT_MODULES))


def _modules(kernel: KernelFiles, names: Iterable[str]) -> list[tuple[str, bytes]]:
    """Return the modules ``names`` and what they need, in load order; those that are built into this kernel are
    omitted.
    """
    found: dict[str, bytes] = {}
    for name in names:
        try:
            found |= {key: data for key, data in kernel.module(name) if key not in found}
        except InputError:
            continue
    return list(found.items())


def _run(command: Sequence[str | Path], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError as error:
        raise MissingDependencyError(f"{command[0]} is needed for {what} and is not installed") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise OutputError(f"{what} failed: {lines[-1] if lines else f'exit code {done.returncode}'}")


def partition_table(size: int, signature: int) -> bytes:
    """Return the first sector of a disk of ``size`` bytes: one Linux partition from 1 MiB on (MBR).

    ``signature`` (32 bits) makes the partition's name, PARTUUID=XXXXXXXX-01. The first 440 bytes are left to zipl.
    """
    start, sectors = _PARTITION // _SECTOR, min((size - _PARTITION) // _SECTOR, 0xFFFFFFFF)
    beyond = b"\xfe\xff\xff"  # cylinder, head and sector of a place that they cannot express
    entry = b"\x80" + beyond + b"\x83" + beyond + start.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    return bytes(440) + signature.to_bytes(4, "little") + bytes(2) + entry + bytes(48) + b"\x55\xaa"


def make_disk(image: Path, tree: Path, size: int, *, label: str = "root", signature: int = 0x7A5EA1) -> None:
    """Write the sparse file ``image`` of ``size`` bytes: one ext4 partition with the files in ``tree``."""
    with image.open("wb") as stream:
        stream.write(partition_table(size, signature))
        stream.truncate(size)
    options = f"offset={_PARTITION},root_owner=0:0,lazy_itable_init=1,nodiscard"
    blocks = f"{(size - _PARTITION) // 1024}k"
    command: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "1", "-L", label]
    command += ["-E", options, "-d", tree, image, blocks]
    _run(command, "making the file system")


class _Builder:
    """Builds one disk."""

    def __init__(
        self, recipe: Recipe, archive: DebianArchive, kernel: KernelFiles, busybox: Path, progress: Progress
    ) -> None:
        self._recipe = recipe
        self._archive = archive
        self._kernel = kernel
        self._busybox = busybox
        self._progress = progress

    def build(self, target: Path) -> None:
        """Make ``disk.img`` in the directory ``target``."""
        with tempfile.TemporaryDirectory(dir=target.parent) as work_name:
            work = Path(work_name)
            self._progress.step("Fetching packages")
            debs = self._archive.download([*PACKAGES, *self._recipe.packages], work / "debs", what="packages")
            self._progress.step(f"Unpacking {len(debs)} packages")
            tree = work / "tree"
            tree.mkdir()
            owners = unpack(debs, tree, progress=lambda share: self._progress.share("Unpacking", share))
            self._settle(tree, owners)
            self._progress.step("Making the file system")
            make_disk(target / "disk.img", tree, self._recipe.size)
            self._progress.step("Configuring the packages in a guest")
            self._configure(target / "disk.img", work, len(debs))

    def _settle(self, tree: Path, owners: Sequence[Owner]) -> None:
        """Add what no package contains: settings, kernel modules, and the scripts of the next step."""
        for path, text in self._settings().items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        for path, place in LINKS.items():
            link = tree / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place)
        modules = tree / "usr/lib/modules" / self._kernel.release
        (modules / "kernel").mkdir(parents=True)
        for name, data in _modules(self._kernel, (*_ROOT_MODULES, *_DISK_MODULES)):
            (modules / "kernel" / name).write_bytes(data)
        for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
            if (self._kernel.modules / name).is_file():
                shutil.copyfile(self._kernel.modules / name, modules / name)
        setup = tree / SETUP
        setup.mkdir(mode=0o700)
        (setup / "configure").write_text(CONFIGURE, encoding="utf-8")
        if self._recipe.packages:
            (setup / "services").touch()
        lines = []
        for owner in owners:
            path = shlex.quote(f".{owner.path}")
            lines.append(f"chown -h {owner.user}:{owner.group} {path}")
            lines.append(f"[ -h {path} ] || chmod {owner.mode & 0o7777:o} {path}")
        (setup / "owners").write_text("\n".join([*lines, ""]), encoding="utf-8")

    def _settings(self) -> Mapping[str, str]:
        name, suite = self._recipe.hostname, self._recipe.suite
        return {
            "etc/hostname": f"{name}\n",
            "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n",
            "etc/fstab": "LABEL=root / ext4 errors=remount-ro 0 0\n",
            "etc/resolv.conf": "nameserver 10.0.2.3\n",
            "etc/apt/sources.list": f"deb {self._archive.mirror()} {suite} main\n",
            "etc/systemd/network/80-dhcp.network": _NETWORK,
            "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",  # no service starts while packages are configured
        }

    def _configure(self, disk: Path, work: Path, packages: int) -> None:
        ramdisk = work / "ramdisk"
        modules = _modules(self._kernel, _ROOT_MODULES)
        ramdisk.write_bytes(busybox_ramdisk(self._busybox, CONFIGURE_INIT, modules=modules))
        output, done = bytearray(), 0
        guest = Guest.plain(
            self._kernel.kernel,
            ramdisk=ramdisk,
            cmdline="console=ttysclp0 quiet mitigations=off random.trust_cpu=on",
            memory=_MEMORY,
            disks=[Disk(str(disk), iommu=False)],
            timeout=_CONFIGURE_SECONDS,
        )
        with guest:
            for event in guest.events():
                if isinstance(event, ConsoleOutput):
                    output += event.data
                    done += event.data.count(b"Setting up ")
                    self._progress.share("Configuring", min(1.0, done / packages))
        result = guest.result
        if result is None or result.outcome is not Outcome.POWEROFF or DONE.encode() not in output:
            lines = [line for line in output.decode("utf-8", "replace").split("\n") if line.strip()]
            raise DebianError(
                f"the packages could not be configured: {lines[-1].strip() if lines else 'the guest wrote nothing'}",
                where=f"Debian {self._recipe.suite}",
                hint="the guest ended with: " + (result.message if result else "nothing"),
            )

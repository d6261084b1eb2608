"""What the benchmarks of guests have in common: kernel, ramdisks, images, guests in pairs, the table of figures."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from zseal.debian.archive import DebianArchive
from zseal.debian.ramdisk import busybox_ramdisk
from zseal.engine.devices import Disk
from zseal.engine.qemu.engine import QemuEngine
from zseal.guest.guest import Guest
from zseal.guest.options import DEFAULT_MEMORY
from zseal.hostkeys.machine import Machine
from zseal.image import build_image

READY = "zseal-benchmark-ready"
TIMEOUT = 600.0
BOOT_INIT = f"#!/bin/sh\necho {READY}\n/bin/busybox poweroff -f\n"
WORKER_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
for module in /modules/*; do insmod $module; done
stty -echo
echo {READY}
while read -r number line; do
    $line >/dev/null 2>/tmp/errors || cat /tmp/errors
    echo "@done$number."
done
"""
"""The /init of a Worker."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What boots as two guests: the sealed ``image``, and the same kernel, ramdisk and command line without it."""

    image: Path
    kernel: Path
    ramdisk: Path
    cmdline: str
    machine: Machine

    def protected(self, *, memory: int = DEFAULT_MEMORY, disks: Sequence[Disk] = (), run_ahead: bool = True) -> Guest:
        """Return the protected guest, not started."""
        return Guest(self.image, machine=self.machine, memory=memory, disks=disks, run_ahead=run_ahead)

    def plain(self, *, memory: int = DEFAULT_MEMORY, disks: Sequence[Disk] = ()) -> Guest:
        """Return the ordinary guest, not started."""
        return Guest.plain(self.kernel, ramdisk=self.ramdisk, cmdline=self.cmdline, memory=memory, disks=disks)


class Workshop:
    """Makes subjects from Debian's kernel and busybox, fetched once into the cache, for a machine of its own."""

    def __init__(self, directory: Path, suite: str = "trixie") -> None:
        self.directory = directory
        self._archive = DebianArchive(suite)
        self.kernel = self._archive.kernel()
        self.machine = Machine.create(directory / "machine")
        self._count = 0

    def subject(self, init: str, cmdline: str = "quiet", *, module: str | None = None) -> Subject:
        """Return a system that runs the script ``init``, with ``module`` and all it needs in /modules."""
        self._count += 1
        ramdisk = self.directory / f"ramdisk-{self._count}"
        modules = () if module is None else self.kernel.module(module)
        ramdisk.write_bytes(busybox_ramdisk(self._archive.busybox(), init, modules=modules))
        image = self.directory / f"image-{self._count}"
        key = self.machine.keys.host.public_key()
        build_image(image, kernel=self.kernel.kernel, ramdisk=ramdisk, cmdline=cmdline.encode(), host_keys=[key])
        return Subject(image, self.kernel.kernel, ramdisk, cmdline, self.machine)

    def boots(self, slots: int = 0) -> Subject:
        """Return a system that ends when /init has spoken; ``slots`` of its pool have 2 KiB, 0 is Linux' default."""
        return self.subject(BOOT_INIT, "quiet" + (f" swiotlb={slots}" if slots else ""))


@contextlib.contextmanager
def workshop(suite: str = "trixie") -> Iterator[Workshop]:
    """Yield a workshop whose files are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="zseal-benchmark-") as name:
        yield Workshop(Path(name), suite)


def boot_seconds(guest: Guest) -> float:
    """Seconds from creating the machine until /init speaks."""
    start = time.perf_counter()
    with guest:
        guest.wait_for_output(READY, TIMEOUT)
        return time.perf_counter() - start


def boot_protected(subject: Subject, memory: int, *, run_ahead: bool = True) -> float:
    """Boot ``subject`` protected; seconds to /init."""
    return boot_seconds(subject.protected(memory=memory, run_ahead=run_ahead))


def boot_plain(subject: Subject, memory: int) -> float:
    """Boot ``subject`` without protection; seconds to /init."""
    return boot_seconds(subject.plain(memory=memory))


class Worker:
    """A guest with WORKER_INIT that waits at its console for work; raises EngineError if it never gets there."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._numbers = itertools.count(1)
        guest.wait_for_output(READY, TIMEOUT)

    def rate(self, command: str, amount: float) -> float:
        """Have ``command`` (a program and its arguments) done with no file cached; ``amount`` per second."""
        self._seconds("sysctl -w vm.drop_caches=3")
        return amount / self._seconds(command)

    def _seconds(self, command: str) -> float:
        number = next(self._numbers)
        start = time.perf_counter()
        self.guest.write_console(f"{number} {command}\n".encode())
        self.guest.wait_for_output(f"@done{number}.", TIMEOUT)
        return time.perf_counter() - start


def forget_translations(guest: Guest) -> None:
    """Have QEMU translate all code anew, where it stops for zseal at all: it does so after a single step.

    Otherwise what programs achieve is a lottery (docs/benchmarks.md, "What disturbs the measurements").
    """
    engine = guest.engine
    if not isinstance(engine, QemuEngine) or engine.machine.gdb is None:
        return
    gdb = engine.machine.gdb

    def step() -> None:
        engine.pause()
        gdb.step(1)
        engine.resume()

    guest.in_loop(step)


@dataclasses.dataclass(frozen=True)
class Pair:
    """One round: the same figure of the protected and of the plain guest."""

    protected: float
    plain: float

    @property
    def ratio(self) -> float:
        """Protected to plain."""
        return self.protected / self.plain


def pairs(rounds: int, protected: Callable[[], float], plain: Callable[[], float]) -> list[Pair]:
    """Measure both in each round, by turns the one and the other first: a machine that gets busier favours none."""
    found = []
    for number in range(rounds):
        if number % 2:
            mine = protected()
            found.append(Pair(mine, plain()))
        else:
            theirs = plain()
            found.append(Pair(protected(), theirs))
    return found


def quickest(found: Sequence[Pair], tries: int) -> list[Pair]:
    """Make one round of each ``tries`` pairs of times: the least of either guest.

    For work of several seconds that is slowed down at random, in the protected guest or in the plain one: what either
    can do is compared, not who had more bad luck.
    """
    rounds = [found[at : at + tries] for at in range(0, len(found), tries)]
    return [Pair(min(pair.protected for pair in each), min(pair.plain for pair in each)) for each in rounds]


def middle(found: Sequence[Pair]) -> Pair:
    """Make one round of an odd number of pairs: the one whose ratio is their median.

    For work that takes moments: what slows down this computer for seconds hits both of a pair, or few of the pairs.
    """
    return sorted(found, key=lambda pair: pair.ratio)[len(found) // 2]


@dataclasses.dataclass(frozen=True)
class Target:
    """A limit for a ratio, or for a figure that has none beside it."""

    limit: float
    at_most: bool

    def met_by(self, value: float) -> bool:
        """Whether ``value`` is within."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: medians of all rounds; ``plain`` and ``ratio`` None if nothing is beside it."""

    name: str
    unit: str
    target: Target | None
    protected: float
    plain: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] = (0.0, 0.0)
    """The least and the largest of what is judged."""

    @classmethod
    def paired(cls, name: str, unit: str, target: Target | None, found: Sequence[Pair]) -> Row:
        """Sum up rounds; the ratio is the median of their ratios."""
        ratios = [pair.ratio for pair in found]
        return cls(
            name,
            unit,
            target,
            statistics.median(pair.protected for pair in found),
            statistics.median(pair.plain for pair in found),
            statistics.median(ratios),
            (min(ratios), max(ratios)),
        )

    @classmethod
    def alone(cls, name: str, unit: str, target: Target, found: Sequence[float]) -> Row:
        """Sum up rounds of a figure that a plain guest does not have."""
        return cls(name, unit, target, statistics.median(found), spread=(min(found), max(found)))

    @property
    def met(self) -> bool:
        """Whether the ratio, or else the figure, is within the target, if there is one."""
        return self.target is None or self.target.met_by(self.protected if self.ratio is None else self.ratio)

    def cells(self) -> tuple[str, ...]:
        """Return the line as it is printed."""
        low, high = self.spread
        digits = 1 if self.ratio is None else 3
        return (
            self.name,
            f"{self.protected:.2f} {self.unit}",
            "-" if self.plain is None else f"{self.plain:.2f} {self.unit}",
            "-" if self.ratio is None else f"{self.ratio:.3f}",
            f"{low:.{digits}f}–{high:.{digits}f}",
            "-" if self.target is None else str(self.target),
            "-" if self.target is None else "yes" if self.met else "NO",
        )


def table(rows: Sequence[Row]) -> str:
    """Return ``rows`` as lines with aligned columns."""
    lines = [("", "protected", "plain", "ratio", "spread", "target", "met"), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )

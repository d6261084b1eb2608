"""What protection costs a guest: every figure beside that of the same guest unprotected, in one run, in one table.

    python benchmarks/guest.py [--rounds N] [--only NAME …] [--suite trixie|sid]

Time is this computer's, never the guest's: a guest's clock stands still whenever QEMU is stopped for an ultravisor
call, so it would not see the cost. What is measured, and how, is in docs/benchmarks.md. The exit code is 1 where a
target is missed. The Debian kernel is fetched once, into the cache.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import (
    WORKER_DATA_MIB,
    WORKER_INIT,
    Pair,
    Row,
    Subject,
    Target,
    Worker,
    Workshop,
    best,
    boot_plain,
    boot_protected,
    boot_seconds,
    pairs,
    table,
    workshop,
)
from zseal.arch.storage import MIB, PAGE_SIZE, OperandMemory
from zseal.engine.interface import Series
from zseal.engine.qemu.devices import Disk

MEMORY = 2048 * MIB
LARGE_POOL = 262144
SLOT = 2048
DEFAULT_POOL_PAGES = 64 * MIB // PAGE_SIZE
DISK_SIZE = 128 * MIB
HASH_PASSES = 2
TRIES = 5
BOOT_TRIES = 2
SETTLE_SECONDS, IDLE_SECONDS = 2.0, 5.0
IDLE_PERCENT = 0.05
"""What is printed as 0.0 % is 0 %."""


class Workers:
    """The pair of guests that live side by side and work by turns; each is started when it is first needed."""

    def __init__(self, shop: Workshop, stack: contextlib.ExitStack) -> None:
        self._shop, self._stack = shop, stack
        self._subject: Subject | None = None
        self._workers: dict[bool, Worker] = {}

    def _disk(self) -> Disk:
        path = self._shop.directory / "disk"
        if not path.exists():
            with path.open("wb") as stream:
                for _ in range(DISK_SIZE // MIB):
                    stream.write(os.urandom(MIB))
        return Disk(str(path), read_only=True)

    def _worker(self, *, protected: bool) -> Worker:
        if self._subject is None:
            self._subject = self._shop.subject(WORKER_INIT, "quiet swiotlb=force", module="virtio_blk")
        if protected not in self._workers:
            start = self._subject.protected if protected else self._subject.plain
            self._workers[protected] = Worker(self._stack.enter_context(start(disks=[self._disk()])))
        return self._workers[protected]

    def protected(self) -> Worker:
        """Return the protected one."""
        return self._worker(protected=True)

    def plain(self) -> Worker:
        """Return the other."""
        return self._worker(protected=False)

    def rates(self, rounds: int, command: str, amount: float) -> list[Pair]:
        """Measure ``amount`` per second of ``command``: the best of TRIES in each round, after one that warms up.

        All that was measured goes to stderr.
        """
        mine, theirs = self.protected(), self.plain()
        mine.rate(command, amount), theirs.rate(command, amount)
        found = pairs(rounds * TRIES, lambda: mine.rate(command, amount), lambda: theirs.rate(command, amount))
        for name, rates in (
            ("protected", [pair.protected for pair in found]),
            ("plain", [pair.plain for pair in found]),
        ):
            print(f"{name}: {' '.join(f'{rate:.2f}' for rate in rates)}", file=sys.stderr)
        return best(found, TRIES)


def boot(name: str, slots: int, limit: float) -> Callable[[Workshop, Workers, int], Row]:
    """Return the measurement of a boot to /init with a pool of ``slots``."""

    def measure(shop: Workshop, _: Workers, rounds: int) -> Row:
        subject = shop.boots(slots)
        found = pairs(
            rounds * BOOT_TRIES,
            lambda: boot_protected(subject, MEMORY),
            lambda: boot_plain(subject, MEMORY),
        )
        for pair in found:
            print(f"protected {pair.protected:.2f} s, plain {pair.plain:.2f} s", file=sys.stderr, flush=True)
        found = best(found, BOOT_TRIES, min)
        return Row.paired(name, "s", Target(limit, at_most=True), found)

    return measure


def calls(name: str, slots: int) -> Callable[[Workshop, Workers, int], Row]:
    """Return the measurement of a share call while a kernel shares its pool of ``slots``."""
    pages = slots * SLOT // PAGE_SIZE if slots else DEFAULT_POOL_PAGES

    def measure(shop: Workshop, _: Workers, rounds: int) -> Row:
        subject = shop.boots(slots)
        return Row.alone(
            name, "µs", Target(20, at_most=True), [call_microseconds(subject, pages) for _ in range(rounds)]
        )

    return measure


def call_microseconds(subject: Subject, pages: int) -> float:
    """Time for one of ``pages`` share calls: from the first call of a boot to the last, all that lies between included.

    That is the guest's own loop, every stop of QEMU and the ultravisor's work. The clock is read once a call that comes
    alone, and once a series of calls that run-ahead answers together.
    """
    guest = subject.protected(memory=MEMORY)
    vmm = guest.vmm
    if vmm is None:
        raise RuntimeError("a protected guest has a hypervisor")
    done: list[tuple[float, int]] = []
    call, series = vmm.guest_call, vmm.series

    def timed_call(cpu: int, memory: OperandMemory, address: int) -> int:
        cc = call(cpu, memory, address)
        done.append((time.perf_counter(), 1))
        return cc

    def timed_series(cpu: int, memory: OperandMemory, address: int) -> Series | None:
        found = series(cpu, memory, address)
        if found is None:
            return None
        complete = found.complete

        def timed(numbers: NDArray[np.int64]) -> None:
            complete(numbers)
            done.append((time.perf_counter(), len(numbers)))

        return dataclasses.replace(found, complete=timed)

    with mock.patch.object(vmm, "guest_call", timed_call), mock.patch.object(vmm, "series", timed_series):
        boot_seconds(guest)
    # Queries of the ultravisor's properties come before, single pages of drivers after the pool.
    shares = done[vmm.ultravisor.snapshot().calls.get("QUI", 0) :]
    totals = list(itertools.accumulate(count for _, count in shares))
    last = bisect.bisect_left(totals, pages)
    if last == len(totals):
        raise RuntimeError(f"the guest shared {totals[-1] if totals else 0} pages, not {pages}")
    return (shares[last][0] - shares[0][0]) / (totals[last] - 1) * 1e6


def idle(_: Workshop, workers: Workers, rounds: int) -> Row:
    """Measure the CPU time of this process, all threads, while the protected guest waits at its console."""
    workers.protected()
    found = []
    time.sleep(SETTLE_SECONDS)
    for _round in range(rounds):
        start, used = time.perf_counter(), time.process_time()
        time.sleep(IDLE_SECONDS)
        found.append(100 * (time.process_time() - used) / (time.perf_counter() - start))
    return Row.alone("ultravisor's CPU, guest idle", "%", Target(IDLE_PERCENT, at_most=True), found)


def cpu(_: Workshop, workers: Workers, rounds: int) -> Row:
    """Measure SHA-256 of a file in tmpfs."""
    found = workers.rates(rounds, "sha256sum" + " /tmp/data" * HASH_PASSES, WORKER_DATA_MIB * HASH_PASSES)
    return Row.paired("CPU-bound: sha256sum of a tmpfs file", "MiB/s", Target(0.97, at_most=False), found)


def disk(_: Workshop, workers: Workers, rounds: int) -> Row:
    """Measure reading a disk from its start to its end."""
    found = workers.rates(rounds, "dd if=/dev/vda of=/dev/null bs=1M", DISK_SIZE / MIB)
    return Row.paired("virtio-blk sequential read", "MiB/s", Target(0.85, at_most=False), found)


MEASUREMENTS: dict[str, Callable[[Workshop, Workers, int], Row]] = {
    "boot": boot("boot, default pool (64 MiB)", 0, 1.15),
    "boot-large": boot("boot, swiotlb=262144 (512 MiB)", LARGE_POOL, 1.5),
    "calls": calls("share call, default pool", 0),
    "calls-large": calls("share call, swiotlb=262144", LARGE_POOL),
    "idle": idle,  # before the plain guest lives beside it
    "cpu": cpu,
    "disk": disk,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=_positive, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), metavar="NAME", help=", ".join(MEASUREMENTS))
    parser.add_argument("--suite", choices=["trixie", "sid"], default="trixie", help="Debian's, for the kernel")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return number


def measure(rounds: int, names: Sequence[str], suite: str) -> Iterator[Row]:
    """Yield the rows of the measurements ``names``, as each is done."""
    with workshop(suite) as shop, contextlib.ExitStack() as guests:
        print(f"Debian {shop.kernel.release}, medians of {rounds}", flush=True)
        workers = Workers(shop, guests)
        for name in names:
            yield MEASUREMENTS[name](shop, workers, rounds)


def main() -> int:
    options = parse()
    names = [name for name in MEASUREMENTS if options.only is None or name in options.only]
    rows = []
    for row in measure(options.rounds, names, options.suite):
        print(f"measured: {row.name}", file=sys.stderr, flush=True)
        rows.append(row)
    print(table(rows))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What protection costs a guest: every figure beside that of the same guest unprotected, in one run, in one table.

    python benchmarks/guest.py [--rounds N] [--only NAME …] [--suite trixie|sid]

Time is this computer's, never the guest's: a guest's clock stands still whenever QEMU is stopped for an ultravisor
call, so it would not see the cost. What is measured, and how, is in docs/benchmarks.md. The exit code is 1 where a
target is missed. The Debian kernel is fetched once, into the cache.
"""

from __future__ import annotations

import argparse
import bisect
import collections
import contextlib
import dataclasses
import functools
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bouncing import bouncing
from benchmarks.common import (
    WORKER_INIT,
    Pair,
    Row,
    Subject,
    Target,
    Worker,
    Workshop,
    boot_plain,
    boot_protected,
    boot_seconds,
    forget_translations,
    middle,
    pairs,
    quickest,
    table,
    workshop,
)
from zseal.arch.storage import MIB, PAGE_SIZE, OperandMemory
from zseal.engine.devices import Disk
from zseal.engine.interface import Series
from zseal.guest.guest import Guest

MEMORY = 2048 * MIB
LARGE_POOL = 262144
SLOT = 2048
DEFAULT_POOL_PAGES = 64 * MIB // PAGE_SIZE
DISK_SIZE = 64 * MIB
PRIME = 10000000000000061
TURNS = 31
PROTECTED, PLAIN, BOUNCING = "protected", "plain", "bouncing"
JOBS = {
    "cpu": (f"factor {PRIME}", 1.0),
    "disk": ("dd if=/dev/vda of=/dev/null bs=1M", DISK_SIZE / MIB),
}
"""What a Worker does in one of its turns, and how much that is."""
BOOT_TRIES = 5
SETTLE_SECONDS, IDLE_SECONDS = 2.0, 5.0
IDLE_PERCENT = 0.05
"""What is printed as 0.0 % is 0 %."""


class Workers:
    """Guests that live side by side and work by turns: new ones for each round, for one may be luckier than another."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._rates: dict[str, list[dict[str, list[float]]]] = {}

    @functools.cached_property
    def _subject(self) -> Subject:
        return self._shop.subject(WORKER_INIT, "quiet swiotlb=force", module="virtio_blk")

    @functools.cached_property
    def _disk(self) -> Disk:
        path = self._shop.directory / "disk"
        with path.open("wb") as stream:
            for _ in range(DISK_SIZE // MIB):
                stream.write(os.urandom(MIB))
        return Disk(str(path), read_only=True)

    def protected(self) -> Guest:
        """Return the protected guest, not started."""
        return self._subject.protected(disks=[self._disk])

    def _guests(self) -> dict[str, Guest]:
        return {
            PROTECTED: self.protected(),
            PLAIN: self._subject.plain(disks=[self._disk]),
            BOUNCING: bouncing(self._subject, disks=[self._disk]),
        }

    def rates(self, rounds: int, job: str) -> list[dict[str, list[float]]]:
        """Return per round, by guest, how fast ``job`` was done in each of TURNS, after one that warms up.

        All jobs are done in one go, when the first is asked for. Medians of what was measured go to stderr.
        """
        while len(self._rates.setdefault(job, [])) < rounds:
            with contextlib.ExitStack() as stack:
                workers = {name: Worker(stack.enter_context(guest)) for name, guest in self._guests().items()}
                for name, (command, amount) in JOBS.items():
                    rates = _by_turns(workers, command, amount)
                    self._rates.setdefault(name, []).append(rates)
                    medians = {guest: round(statistics.median(found), 2) for guest, found in rates.items()}
                    print(name, medians, file=sys.stderr, flush=True)
        return self._rates[job]

    def pairs(self, rounds: int, job: str, other: str) -> list[list[Pair]]:
        """Return for each round the rates of ``job`` in the protected guest, each beside the ``other`` one's."""
        return [list(map(Pair, rates[PROTECTED], rates[other])) for rates in self.rates(rounds, job)]


def _by_turns(workers: Mapping[str, Worker], command: str, amount: float) -> dict[str, list[float]]:
    """Have all do ``command`` by turns, now the one first and now another; return the rates of each."""
    for worker in workers.values():
        forget_translations(worker.guest)
        worker.rate(command, amount)
    found: dict[str, list[float]] = {name: [] for name in workers}
    order = collections.deque(workers)
    for _ in range(TURNS):
        order.rotate()
        for name in order:
            found[name].append(workers[name].rate(command, amount))
    return found


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
        found = quickest(found, BOOT_TRIES)
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
    """Measure the CPU time of this process, all threads, while a protected guest waits at its console."""
    found = []
    with workers.protected() as guest:
        Worker(guest)
        time.sleep(SETTLE_SECONDS)
        for _round in range(rounds):
            start, used = time.perf_counter(), time.process_time()
            time.sleep(IDLE_SECONDS)
            found.append(100 * (time.process_time() - used) / (time.perf_counter() - start))
    return Row.alone("ultravisor's CPU, guest idle", "%", Target(IDLE_PERCENT, at_most=True), found)


def work(
    name: str, unit: str, job: str, other: str, least: float | None = None
) -> Callable[[Workshop, Workers, int], Row]:
    """Return the measurement of ``job`` in a protected guest beside the ``other`` one."""

    def measure(_: Workshop, workers: Workers, rounds: int) -> Row:
        target = None if least is None else Target(least, at_most=False)
        return Row.paired(name, unit, target, [middle(pairs) for pairs in workers.pairs(rounds, job, other)])

    return measure


MEASUREMENTS: dict[str, Callable[[Workshop, Workers, int], Row]] = {
    "boot": boot("boot, default pool (64 MiB)", 0, 1.15),
    "boot-large": boot("boot, swiotlb=262144 (512 MiB)", LARGE_POOL, 1.5),
    "calls": calls("share call, default pool", 0),
    "calls-large": calls("share call, swiotlb=262144", LARGE_POOL),
    "idle": idle,
    "cpu": work("CPU-bound: a number factored", "1/s", "cpu", PLAIN, 0.97),
    "disk": work("virtio-blk read, beside a guest that bounces", "MiB/s", "disk", BOUNCING, 0.85),
    "disk-plain": work("virtio-blk read, beside one that does not", "MiB/s", "disk", PLAIN),
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
    with workshop(suite) as shop:
        print(f"Debian {shop.kernel.release}, medians of {rounds}", flush=True)
        workers = Workers(shop)
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

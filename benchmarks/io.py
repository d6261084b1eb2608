"""What the I/O audit costs: disk work of a protected guest under each policy, beside one that bounces unprotected.

    python benchmarks/io.py [--rounds N] [--only NAME …] [--policies NAME …] [--suite trixie|sid]

The guest without protection copies through bounce buffers as well (benchmarks/bouncing.py). Policy "breakpoints" is
enforcement as it is on a QEMU that takes no plugins. Time is this computer's; a guest's clock stands still while QEMU
is stopped. All guests live side by side and work by turns.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bouncing import bouncing
from benchmarks.common import WORKER_INIT, Row, Subject, Target, Worker, Workshop, pairs, table, workshop
from zseal.arch.storage import MIB
from zseal.engine.devices import Disk
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.guest import Guest

DISK_SIZE = 96 * MIB
BREAKPOINTS = "breakpoints"
POLICIES = ("off", "audit", "enforce", BREAKPOINTS)

# name: title, unit, what the guest does (amount in the unit), amount, least ratio
JOBS = {
    "read": ("sequential read", "MiB/s", "dd if=/dev/vda of=/dev/null bs=1M", DISK_SIZE / MIB, 0.85),
    "write": ("sequential write, fsync", "MiB/s", "dd if=/dev/zero of=/dev/vda bs=1M count=48 conv=fsync", 48.0, 0.85),
    "small": ("4 KiB direct reads", "1/s", "dd if=/dev/vda of=/dev/null bs=4k count=2000 iflag=direct", 2000.0, 0.6),
}


def protected(subject: Subject, policy: str, disk: Disk) -> Guest:
    """Return the guest with the I/O policy, not started."""
    return Guest(
        subject.image,
        machine=subject.machine,
        disks=[disk],
        io_policy=IoPolicy.ENFORCE if policy == BREAKPOINTS else IoPolicy(policy),
    )


def workers(shop: Workshop, policies: Sequence[str], stack: contextlib.ExitStack) -> dict[str, Worker]:
    """Start all guests: one for each policy, and "plain"."""
    subject = shop.subject(WORKER_INIT, "quiet swiotlb=force", module="virtio_blk")
    found = {}
    for name in ("plain", *policies):
        path = shop.directory / f"disk-{name}"
        path.write_bytes(os.urandom(DISK_SIZE))
        disk = Disk(str(path))
        guest = bouncing(subject, disks=[disk]) if name == "plain" else protected(subject, name, disk)
        without_plugin = mock.patch.dict(os.environ, ZSEAL_PLUGIN="off")
        with without_plugin if name == BREAKPOINTS else contextlib.nullcontext():
            stack.enter_context(guest)
        found[name] = Worker(guest)
    return found


def measure(rounds: int, jobs: Sequence[str], policies: Sequence[str], suite: str) -> Iterator[Row]:
    """Yield a row for each job and policy, as each is done."""
    with workshop(suite) as shop, contextlib.ExitStack() as stack:
        guests = workers(shop, policies, stack)
        print(f"Debian {shop.kernel.release}, medians of {rounds}", flush=True)
        for name in jobs:
            title, unit, command, amount, limit = JOBS[name]
            rates = {who: functools.partial(guest.rate, command, amount) for who, guest in guests.items()}
            for policy in policies:
                rates[policy](), rates["plain"]()  # warms up, and does not count
                found = pairs(rounds, rates[policy], rates["plain"])
                least = 0.0 if policy == BREAKPOINTS else limit
                yield Row.paired(f"{title}, {policy}", unit, Target(least, at_most=False), found)
        for policy in policies:
            if (audit := guests[policy].guest.io) is not None:
                (disk,) = audit.traffic()
                print(
                    f"{policy}: {audit.notifications} notifications, {disk.requests} requests, "
                    f"{disk.bytes_from_device / MIB:.0f} MiB read, {disk.bytes_to_device / MIB:.0f} MiB written, "
                    f"{disk.violations} violations"
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS), metavar="NAME")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=["off", "enforce"], metavar="NAME")
    parser.add_argument("--suite", choices=["trixie", "sid"], default="trixie", help="Debian's, for the kernel")
    options = parser.parse_args()
    rows = list(measure(max(1, options.rounds), options.only, options.policies, options.suite))
    print(table(rows))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

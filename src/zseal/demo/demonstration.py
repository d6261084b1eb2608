"""What ``zseal demo`` shows, with every guest: the observations, and the steps that do not depend on what it boots."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from zseal.errors import InputError, ZsealError
from zseal.guest.engines import EngineName
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome, Result
from zseal.hostkeys.machine import Machine
from zseal.image.read import read_image
from zseal.jsonvalue import Json


class DemoError(ZsealError):
    """The demonstration could not be completed."""


@dataclasses.dataclass(frozen=True)
class RefusedStart:
    """A start that must fail: whether it did, the ultravisor's answer and what it means."""

    refused: bool
    rc: int
    rrc: int
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boot:
    """The observations of one boot; ``kernel`` and ``guest`` (prot_virt_guest) are None if the guest is not Linux."""

    kernel: str | None = None
    guest: bool | None = None
    facility: bool
    marker_held: bool
    seconds: float
    seen_before: bool
    seen_after: bool
    shared_pages: int


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """The measured result; ``ok`` is whether every promise was kept. Seconds are from the start to the guest's own
    report.

    ``kernel`` and ``prot_virt_guest`` are None if the guest was not Linux.
    """

    booted: bool
    kernel: str | None
    prot_virt_guest: bool | None
    facility_158: bool
    marker_in_guest: bool
    marker_in_host_view: bool
    marker_after_share: bool
    marker_in_plain_host_view: bool
    wrong_machine: RefusedStart
    tampered: RefusedStart
    boot_seconds: float
    plain_boot_seconds: float
    shared_pages: int

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return (
            self.booted
            and self.prot_virt_guest is not False
            and self.facility_158
            and self.marker_in_guest
            and not self.marker_in_host_view
            and self.marker_after_share
            and self.marker_in_plain_host_view
            and self.wrong_machine.refused
            and self.tampered.refused
        )

    def json(self) -> dict[str, Json]:
        """Return the report that ``zseal demo --report`` writes."""
        return dataclasses.asdict(self)


def demonstration(sealed: Boot, plain: Boot, *, wrong_machine: RefusedStart, tampered: RefusedStart) -> Demonstration:
    """Return the result of a protected and a plain boot and of two starts that must fail."""
    return Demonstration(
        booted=True,
        kernel=sealed.kernel,
        prot_virt_guest=sealed.guest,
        facility_158=sealed.facility,
        marker_in_guest=sealed.marker_held,
        marker_in_host_view=sealed.seen_before,
        marker_after_share=sealed.seen_after,
        marker_in_plain_host_view=plain.seen_before,
        wrong_machine=wrong_machine,
        tampered=tampered,
        boot_seconds=sealed.seconds,
        plain_boot_seconds=plain.seconds,
        shared_pages=sealed.shared_pages,
    )


def shared_pages(report: dict[str, Json]) -> int:
    """Return how many pages the guest had shared at its end; 0 for a plain guest."""
    ultravisor = report["ultravisor"]
    pages = ultravisor["pages"] if isinstance(ultravisor, dict) else None
    shared = pages["shared"] if isinstance(pages, dict) else 0
    return shared if isinstance(shared, int) else 0


def host_sees(guest: Guest, marker: str) -> bool:
    """Search everything that the host gets of the guest's memory, while the guest is paused."""
    guest.pause()
    try:
        return guest.host.find(marker.encode()) is not None
    finally:
        guest.resume()


def refused_start(image: Path, machine: Machine, *, memory: int, engine: EngineName) -> RefusedStart:
    """Start ``image`` and return how it was refused; raises DemoError if nothing happens."""
    with Guest(image, machine=machine, memory=memory, timeout=60.0, engine=engine) as guest:
        result = guest.wait(90.0)
    if result is None:
        raise DemoError("the guest neither started nor was refused")
    if result.refusal is None:
        return RefusedStart(False, 0, 0, result.message)
    refusal = result.refusal
    return RefusedStart(result.outcome is Outcome.REFUSED, refusal.rc, refusal.rrc, refusal.message)


def flip_one_byte(image: Path, copy: Path) -> Path:
    """Write a copy of the image whose kernel component differs in one bit."""
    components = read_image(image).components
    if not components:
        raise InputError("the image lists no components", where=str(image))
    data = bytearray(image.read_bytes())
    data[components[0].address + components[0].size // 2] ^= 1
    copy.write_bytes(data)
    return copy


def require_poweroff(result: Result | None) -> None:
    """Raise DemoError unless the guest ended by powering itself off."""
    if result is None or result.outcome is not Outcome.POWEROFF:
        raise DemoError(f"the guest did not power off: {result.message if result else 'it is still running'}")

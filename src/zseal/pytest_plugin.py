"""pytest fixtures for testing boot images as protected guests; registered as the plugin ``pytest-zseal``.

``zseal_machine`` is a software machine for the whole test session, ``protected_guest`` starts guests on it and ends
them when the test is over. The report of a failing test includes what its guests wrote to their consoles.
docs/testing.md has examples. Nothing heavy is imported before a test uses a fixture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import pytest

if TYPE_CHECKING:
    from zseal.guest.guest import Guest
    from zseal.guest.options import GuestKeywords
    from zseal.hostkeys.machine import Machine

__all__ = ["ProtectedGuests", "protected_guest", "zseal_machine"]


class ProtectedGuests:
    """Starts protected guests; call it with what to boot. The images that it seals are in ``directory``."""

    def __init__(self, machine: Machine, directory: Path) -> None:
        self.machine = machine
        self.directory = directory
        self.guests: list[Guest] = []
        self._numbers = itertools.count()

    def __call__(
        self,
        image: Path | None = None,
        *,
        kernel: Path | bytes | None = None,
        ramdisk: Path | bytes | None = None,
        cmdline: str | None = None,
        machine: Machine | None = None,
        **options: Unpack[GuestKeywords],
    ) -> Guest:
        """Start and return a guest; a ``with`` block around it ends it before the test does.

        Give either a sealed ``image``, or a ``kernel`` (with ``ramdisk`` and ``cmdline``) that is sealed first.
        ``machine`` replaces ``zseal_machine``: the kernel is sealed for it and runs on it.
        :class:`zseal.guest.GuestOptions` explains the other options; ``timeout`` is 60 here unless given.
        Raises ZsealError if it cannot be sealed or started, ValueError if neither or both are given, or if an image
        comes with options of a kernel.
        """
        from zseal.guest.guest import Guest
        from zseal.image.build import build_image

        machine = machine or self.machine
        if (image is None) == (kernel is None):
            raise ValueError("give either an image or a kernel")
        if image is not None and (ramdisk is not None or cmdline is not None):
            raise ValueError("ramdisk and cmdline belong to a kernel: a sealed image has its own")
        if kernel is not None:
            image = self.directory / f"sealed-{next(self._numbers)}.img"
            build_image(
                image,
                kernel=kernel,
                ramdisk=ramdisk,
                cmdline=None if cmdline is None else cmdline.encode(),
                host_keys=[machine.keys.host.public_key()],
            )
        options.setdefault("timeout", 60.0)
        guest = Guest(image, machine=machine, **options)
        self.guests.append(guest)
        guest.start()
        return guest

    def close(self) -> None:
        """End all guests; then raises the first error of those that could not be ended."""
        errors: list[Exception] = []
        for guest in self.guests:
            try:
                guest.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def consoles(self) -> list[str]:
        """Return each guest's console output."""
        return [_output_of(guest) for guest in self.guests]


def _output_of(guest: Guest) -> str:
    from zseal.guest.events import ConsoleOutput

    output = (event.data for event in guest.events(timeout=0.0) if isinstance(event, ConsoleOutput))
    return b"".join(output).decode("utf-8", "replace")


@pytest.fixture(scope="session")
def zseal_machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Return a software machine that exists as long as the test session."""
    from zseal.hostkeys.machine import Machine

    return Machine.create(tmp_path_factory.mktemp("zseal") / "machine", name="pytest")


@pytest.fixture
def protected_guest(
    request: pytest.FixtureRequest, zseal_machine: Machine, tmp_path: Path
) -> Iterator[ProtectedGuests]:
    """Yield a callable that starts protected guests on ``zseal_machine``; they end with the test."""
    guests = ProtectedGuests(zseal_machine, tmp_path)
    yield guests
    try:
        guests.close()
    finally:
        for number, text in enumerate(guests.consoles()):
            request.node.add_report_section("teardown", f"console of guest {number}", text)

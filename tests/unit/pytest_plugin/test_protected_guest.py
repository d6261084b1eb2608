"""What ``protected_guest`` makes of its arguments; the embedded engine runs its guests here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.waiting import PATIENCE
from zseal.arch.storage import MIB
from zseal.engine.errors import EngineError
from zseal.guest.guest import Guest
from zseal.guest.options import GuestKeywords
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.pytest_plugin import ProtectedGuests
from zseal.testguest import kernel

OPTIONS: GuestKeywords = {"memory": 8 * MIB, "engine": "embedded"}


@pytest.fixture
def guests(zseal_machine: Machine, tmp_path: Path) -> Iterator[ProtectedGuests]:
    guests = ProtectedGuests(zseal_machine, tmp_path)
    yield guests
    guests.close()


def test_all_options_of_a_guest_can_be_given() -> None:
    def options(function: object) -> object:
        return inspect.get_annotations(cast("Callable[..., Guest]", function))["options"]

    assert options(ProtectedGuests.__call__) == options(Guest.__init__) == "Unpack[GuestKeywords]"


@pytest.mark.parametrize("option", ["ramdisk", "cmdline"])
def test_what_belongs_to_a_kernel_is_refused_with_an_image(guests: ProtectedGuests, option: str) -> None:
    with pytest.raises(ValueError, match="ramdisk and cmdline belong to a kernel"):
        if option == "ramdisk":
            guests(Path("sealed.img"), ramdisk=b"")
        else:
            guests(Path("sealed.img"), cmdline="")


def test_a_kernel_is_sealed_for_the_machine_that_it_is_to_run_on(guests: ProtectedGuests, tmp_path: Path) -> None:
    other = Machine.create(tmp_path / "other")
    result = guests(kernel=kernel(), cmdline="poweroff", machine=other, **OPTIONS).wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.POWEROFF


def test_a_with_block_ends_the_guest_before_the_test_does(guests: ProtectedGuests) -> None:
    with guests(kernel=kernel(), cmdline="hello loop", **OPTIONS) as guest:
        guest.wait_for_output("hello")
        with pytest.raises(EngineError, match="started twice"):
            guest.start()
        assert guest.wait(0) is None
    result = guest.wait(0)
    assert result is not None
    assert result.outcome is Outcome.STOPPED
    guests.close()
    assert "hello" in guests.consoles()[0]

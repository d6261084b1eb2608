"""Devices without iommu_platform are explained where a protected guest used none of them, however its run ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.qemu.conftest import Seal, Start
from tests.waiting import PATIENCE
from zseal.engine.devices import RandomSource
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine

pytestmark = pytest.mark.qemu

BEHIND = ("-object", "rng-builtin,id=other", "-device", "virtio-rng-ccw,rng=other,devno=fe.0.0042")


def explained(guest: Guest) -> list[str]:
    return [found.message for found in guest.diagnoses if found.id == "virtio-without-iommu"]


@pytest.mark.parametrize("io_policy", ["enforce", "off"])
def test_each_device_is_told_once_wherever_it_was_given(start: Start, io_policy: str) -> None:
    sources = [RandomSource(iommu=False), RandomSource()]
    with start("poweroff", random_sources=sources, qemu_arguments=BEHIND, io_policy=io_policy) as guest:
        guest.wait()
    first, second = explained(guest)
    assert "(rng0-device): it comes without iommu_platform" in first
    assert "no use of virtio-rng 0.0.0042: it comes without iommu_platform" in second
    listed = guest.report["diagnoses"]
    assert isinstance(listed, list)
    assert len(listed) == 2


def test_a_guest_that_is_stopped_has_them_explained_too(start: Start) -> None:
    with start("hello loop", random_sources=[RandomSource(iommu=False)]) as guest:
        guest.wait_for_output("hello")
        guest.stop()
        result = guest.wait()
    assert result is not None
    assert result.outcome is Outcome.STOPPED
    assert len(explained(guest)) == 1


def test_nothing_is_said_of_a_guest_that_was_never_protected(seal: Seal, machine: Machine, tmp_path: Path) -> None:
    image = seal("poweroff", owner=Machine.create(tmp_path / "other"))
    with Guest(image, machine=machine, memory=64 << 20, random_sources=[RandomSource(iommu=False)]) as guest:
        result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.REFUSED
    assert guest.diagnoses == ()

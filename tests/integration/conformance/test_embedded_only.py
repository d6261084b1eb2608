"""What only the embedded engine shows: every first access of the guest is seen, and nothing needs QEMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.guest.outcome import Outcome
from zseal.guest.session import Session
from zseal.hypervisor.vmm import Vmm

if TYPE_CHECKING:
    from tests.integration.conformance.conftest import Laboratory

MARKER = 0x100000


def test_no_program_is_started(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    path = laboratory.seal("hello poweroff")
    monkeypatch.setenv("PATH", "")
    assert laboratory.run("embedded", path).lines == ["hello"]


def test_pages_that_the_host_takes_out_come_back_when_they_are_touched(laboratory: Laboratory) -> None:
    taken: list[bytes] = []

    def take(session: Session, vmm: Vmm, output: bytes) -> None:
        if not taken and b"taken?" in output:
            vmm.ultravisor.host.export_run(0, 2 * MIB)
            taken.append(vmm.ultravisor.firmware.storage.read(MARKER, PAGE_SIZE))
            assert vmm.page_counts()["private"] < 32 * MIB // PAGE_SIZE - 300

    path = laboratory.seal("marker=TOPSECRET say=taken? nap=50 holds=marker,TOPSECRET query poweroff")
    run = laboratory.run("embedded", path, meanwhile=take)
    assert taken
    assert b"TOPSECRET" not in taken[0]
    assert run.lines[2:] == ["nap done", "holds address=0x100000 yes", *run.lines[4:]]
    assert run.lines[4].startswith("query cc=0 rc=0001")
    assert run.result.outcome is Outcome.POWEROFF


def test_a_guest_whose_page_was_changed_outside_is_stopped_when_it_touches_it(laboratory: Laboratory) -> None:
    changed = False

    def change(session: Session, vmm: Vmm, output: bytes) -> None:
        nonlocal changed
        if not changed and b"taken?" in output:
            changed = True
            vmm.ultravisor.host.export_run(MARKER, PAGE_SIZE)
            data = bytearray(vmm.ultravisor.firmware.storage.read(MARKER, PAGE_SIZE))
            data[100] ^= 1
            vmm.ultravisor.firmware.storage.write(MARKER, data)

    path = laboratory.seal("marker=TOPSECRET say=taken? nap=50 holds=marker,TOPSECRET say=never poweroff")
    run = laboratory.run("embedded", path, meanwhile=change)
    assert changed
    assert "never" not in run.lines
    assert run.result.outcome is Outcome.FAILED
    assert "rc 0x0108" in run.result.message
    assert "the page was changed" in run.result.message


def test_pages_that_the_guest_never_touches_stay_the_hosts(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zseal.ultravisor.FirmwareInterface.adopt_all", lambda self, handle: 0)
    seen: dict[int, bool] = {}

    def look(session: Session, vmm: Vmm, output: bytes) -> None:
        for address in (MARKER, 0x300000):
            try:
                vmm.ultravisor.host.read(address, 8)
                seen[address] = True
            except ProgramInterruption as error:
                assert error.code is ProgramCode.SECURE_STORAGE_ACCESS
                seen[address] = False

    path = laboratory.seal("marker=TOPSECRET say=look nap=30 zero=pool,3000 poweroff")
    run = laboratory.run("embedded", path, meanwhile=look)
    assert run.lines[-1] == "zero address=0x200000 size=0x3000 yes"
    assert seen == {MARKER: False, 0x300000: True}
    assert run.pages["unused"] > 7000
    assert run.result.outcome is Outcome.POWEROFF

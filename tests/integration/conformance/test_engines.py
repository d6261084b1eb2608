"""The same scripts on the embedded engine and on QEMU: the same lines, milestones, ends and page states."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

import pytest

from zseal.engine.interface import Milestone
from zseal.guest.outcome import Outcome

if TYPE_CHECKING:
    from tests.integration.conformance.conftest import EngineName, Laboratory

pytestmark = pytest.mark.qemu

RAMDISK = random.Random(7).randbytes(54321)

SCRIPTS = {
    "console": "hello say=TEXT storage cmdline poweroff",
    "facilities": "facility facility=158,161,1,2,7 poweroff",
    "query": "query query=a8 query=10 query=200 poweroff",
    "sharing": "share=40 unshare=13 share=5 share-at=pool+8000 unshare-at=pool poweroff",
    "refused calls": "uvc=1000,20 uvc=1000,20,18:pool+1 uvc=1001,20,18:end uvc=9999,20 uvc=100,90 uvc=1000,8 poweroff",
    "exceptions": "problem problem=1000 misaligned crossing readonly poweroff",
    "translation": "dat=primary share=3 query dat=home share=3 uvc=1000,20,18:pool dat=off unshare=3 poweroff",
    "unmapped": "dat=home crossing readonly dat=off poweroff",
    "storage": "store=block,abcdef holds=block,abcdef holds=pool,abc zero=pool,2000 load=block,40 crc=block,9 poweroff",
    "diagnose": "diag=6 diag=8 diag=9 diag=a diag=7 diag=4 diag=2 poweroff",
    "resets that keep protection": "share=4 diag=0 query share=4 diag=1 query poweroff",
    "a panic": "hello panic=1234",
    "an unknown word": "hello nonsense",
    "waiting": "nap=5 nap=1 hello poweroff",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_both_engines_do_the_same(laboratory: Laboratory, name: str) -> None:
    path = laboratory.seal(SCRIPTS[name])
    embedded, qemu = (laboratory.run(engine, path) for engine in ("embedded", "qemu"))
    assert embedded.lines == qemu.lines
    assert embedded.lines, "the guest wrote nothing"
    assert embedded.result.outcome is qemu.result.outcome
    assert embedded.result.psw == qemu.result.psw
    assert embedded.milestones == qemu.milestones
    assert embedded.pages == qemu.pages


@pytest.mark.parametrize("engine", ["embedded", "qemu"])
def test_a_protected_guest_runs_from_image_to_power_off(laboratory: Laboratory, engine: EngineName) -> None:
    path = laboratory.seal("facility ramdisk share=2 poweroff", ramdisk=RAMDISK)
    run = laboratory.run(engine, path)
    assert run.lines[:2] == ["facility 158 yes", "facility 161 no"]
    assert run.lines[2].endswith(f"size=54321 crc32={zlib.crc32(RAMDISK):08x}")
    assert run.lines[3].startswith("share pages=2 of 2 ")
    assert run.milestones == [Milestone.IMAGE_ENTRY, Milestone.KERNEL_ENTRY]
    assert run.result.outcome is Outcome.POWEROFF


@pytest.mark.parametrize("engine", ["embedded", "qemu"])
def test_an_image_for_another_machine_is_refused(laboratory: Laboratory, engine: EngineName) -> None:
    path = laboratory.seal("hello poweroff", machine=laboratory.other)
    run = laboratory.run(engine, path)
    assert run.result.outcome is Outcome.REFUSED
    assert run.result.refusal is not None
    assert (run.result.refusal.rc, run.result.refusal.rrc) == (0x0108, 0x0005)
    assert any("Protected boot failed: 0xa02" in line for line in run.lines)
    assert run.milestones == [Milestone.IMAGE_ENTRY]


@pytest.mark.parametrize("engine", ["embedded", "qemu"])
def test_the_host_sees_shared_pages_and_ciphertext(laboratory: Laboratory, engine: EngineName) -> None:
    path = laboratory.seal("storage marker=TOPSECRET share=1 poweroff")
    run = laboratory.run(engine, path, look_at=(0x100000, 0x200000, 0x201000))
    assert run.lines[0].endswith("marker=0x100000 block=0x101000 uvcb=0x102000 pool=0x200000")
    assert b"TOPSECRET" not in run.host[0x100000]
    assert len(set(run.host[0x100000])) > 200
    assert run.host[0x200000].startswith(b"zseal pool page 00000000 shared ")
    assert run.host[0x201000] != bytes(4096)


@pytest.mark.parametrize("engine", ["embedded", "qemu"])
def test_a_second_cpu_has_its_own_prefix(laboratory: Laboratory, engine: EngineName) -> None:
    run = laboratory.run(engine, laboratory.seal("cpu hello poweroff"), cpus=2)
    assert run.lines == ["cpu 1 prefix=0x6000 query cc=0 rc=0001 rrc=0000", "hello"]
    assert run.result.outcome is Outcome.POWEROFF
    alone = laboratory.run(engine, laboratory.seal("cpu hello poweroff"), cpus=1)
    assert alone.lines == ["cpu 1 did not start", "hello"]


@pytest.mark.parametrize("engine", ["embedded", "qemu"])
def test_a_reboot_comes_up_protected_again_from_the_image(laboratory: Laboratory, engine: EngineName) -> None:
    run = laboratory.run(engine, laboratory.seal("marker=GONE share=3 hello reboot"), resets=2)
    boot = [Milestone.IMAGE_ENTRY, Milestone.KERNEL_ENTRY]
    assert run.milestones[:5] == [*boot, *boot, Milestone.IMAGE_ENTRY]
    assert run.lines[:6:3] == ["marker address=0x100000 length=4"] * 2
    assert run.lines.count("hello") >= 2
    assert run.result.outcome is Outcome.STOPPED

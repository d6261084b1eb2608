"""Images of other builders start: other bootloaders, other places and numbers of components, several key slots.

The bootloaders here are written from the interfaces alone and share nothing with those in ``native/bootloaders/``:
stage3a asks for no facility, has no arguments at its end and lies elsewhere; stage3b has its arguments in front.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.waiting import PATIENCE
from zseal.crypto.digests import ImageDigests
from zseal.crypto.header import seal_header
from zseal.crypto.keyexchange import CURVE, make_slot, public_coordinates
from zseal.crypto.xts import XtsPages
from zseal.formats.image_metadata import OFFSET as METADATA_OFFSET
from zseal.formats.image_metadata import ImageMetadata
from zseal.formats.ipib import Ipib, IpibComponent
from zseal.formats.se_header import PCKMO, FixedPart, SecretArea, SecretFlags
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine
from zseal.image.keys import ImageKeys
from zseal.image.verify import verify_image
from zseal.testguest import kernel

pytestmark = pytest.mark.qemu

PAGE = 4096
WORDS = b"hello facility=158 cmdline share=2 unshare=1"
PSW_64BIT = 0x180000000

STAGE3A = """
        larl    %r2,. + {ipib_distance}
        lghi    %r1,8
        diag    %r2,%r1,0x308
        lghi    %r1,10
        diag    %r2,%r1,0x308
        larl    %r1,stop
        lpswe   0(%r1)
        .balign 8
stop:   .quad   0x0002000180000000, 0xbad
"""
STAGE3B = """
        j       go
        .balign 8
arguments:
        .quad   {kernel} + 0x10000, {blocks}, {cmdline}, 0x180000000, 0x10000
go:     larl    %r7,arguments
        lmg     %r8,%r10,0(%r7)
        llilh   %r6,1
move:   mvc     0(256,%r6),0(%r8)
        la      %r6,256(%r6)
        la      %r8,256(%r8)
        brctg   %r9,move
        llilh   %r6,1
        mvc     0x480(256,%r6),0(%r10)
        lpswe   24(%r7)
"""


@dataclasses.dataclass(frozen=True)
class Foreign:
    """Where another builder puts things, and in which order it lists the components."""

    stage3a: int
    ipib: int
    header: int
    addresses: dict[str, int]
    numbers: dict[str, int]
    owners: tuple[bool, ...]
    """For each key slot, whether it is made for our machine."""
    metadata: bool
    pv_version: int

    def build(self, folder: Path, machine: Machine, words: bytes = WORDS) -> Path:
        """Write the image into ``folder``."""
        size = len(kernel())
        loader = STAGE3B.format(
            kernel=self.addresses["kernel"], blocks=-(-(size - 0x10000) // 256), cmdline=self.addresses["cmdline"]
        )
        contents = {"kernel": kernel(), "cmdline": words.ljust(256, b"\0"), "stage3b": assemble(folder, loader)}
        keys = ImageKeys.generate()
        xts, digests = XtsPages(keys.image_key), ImageDigests()
        parts: dict[int, bytes | bytearray] = {}
        listed = []
        for name, address in self.addresses.items():
            prefix = self.numbers[name] << 48 | 0xFEDCBA987654
            padded = contents[name].ljust(-(-len(contents[name]) // PAGE) * PAGE, b"\0")
            parts[address] = stored = xts.encrypt_run(padded, prefix, 0)
            digests.update_run(stored, address, prefix, 0)
            listed.append(IpibComponent(tweak_prefix=prefix, address=address, size=len(padded)))
        values = digests.values()
        fixed = FixedPart(
            iv=keys.iv, nep=values.nep, pcf=PCKMO, pld=values.pld, ald=values.ald, tld=values.tld,
            customer_key=public_coordinates(keys.customer_key.public_key()),
        )  # fmt: skip
        area = SecretArea(
            cck=keys.cck, image_key=keys.image_key, psw_mask=PSW_64BIT, psw_address=self.addresses["stage3b"],
            scf=SecretFlags(0),
        )  # fmt: skip
        slots = tuple(
            make_slot(
                keys.customer_key,
                machine.keys.host.public_key() if ours else ec.generate_private_key(CURVE()).public_key(),
                keys.header_key,
            )
            for ours in self.owners
        )
        header = seal_header(fixed, slots, area, keys.header_key)
        ipib = Ipib.build(header_address=self.header, header_size=header.size, components=listed)
        ipib = dataclasses.replace(ipib, header=dataclasses.replace(ipib.header, pv_version=self.pv_version))
        parts |= {
            0: (0x00080001_80000000 | self.stage3a).to_bytes(8),
            self.stage3a: assemble(folder, STAGE3A.format(ipib_distance=self.ipib - self.stage3a)),
            self.ipib: ipib.pack(),
            self.header: header.pack(),
        }
        if self.metadata:
            parts[METADATA_OFFSET] = ImageMetadata(header_offset=self.header, ipib_offset=self.ipib).pack()
        path = folder / "image"
        with path.open("wb") as image:
            for address, data in parts.items():
                image.seek(address)
                image.write(data)
        return path


def assemble(folder: Path, source: str) -> bytes:
    """Return the machine code of ``source``, made by the compiler that our bootloaders are built with."""
    (folder / "loader.s").write_text(source)
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(folder), "ZIG_LOCAL_CACHE_DIR": str(folder)}
    zig = [sys.executable, "-m", "ziglang"]
    for command in (
        [*zig, "cc", "-target", "s390x-freestanding-none", "-mcpu=z10", "-c", "loader.s", "-o", "loader.o"],
        [*zig, "ld.lld", "--oformat", "binary", "-e", "0", "-Ttext", "0", "-o", "loader.bin", "loader.o"],
    ):
        done = subprocess.run(command, cwd=folder, env=os.environ | cache, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return (folder / "loader.bin").read_bytes()


IMAGES = {
    "loaders elsewhere, bootloader first and kernel last": Foreign(
        stage3a=0x18000, ipib=0x30000, header=0x1E000,
        addresses={"stage3b": 0x200000, "cmdline": 0x203000, "kernel": 0x300000},
        numbers={"stage3b": 1, "cmdline": 900, "kernel": 0xFFFF},
        owners=(False, True, False), metadata=True, pv_version=1,
    ),
    "components in descending order, no metadata": Foreign(
        stage3a=0x11000, ipib=0x13000, header=0x14000,
        addresses={"kernel": 0x700000, "stage3b": 0x480000, "cmdline": 0x40000},
        numbers={"kernel": 1, "stage3b": 2, "cmdline": 3},
        owners=(False, False, False, False, True), metadata=False, pv_version=0,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "ours")


@pytest.mark.parametrize("name", IMAGES)
def test_image_of_another_builder_boots(tmp_path: Path, machine: Machine, name: str) -> None:
    path = IMAGES[name].build(tmp_path, machine)
    verify_image(path, machine.keys)
    output = b""
    with Guest(path, machine=machine, memory=64 << 20, timeout=PATIENCE) as guest:
        for event in guest.events():
            if isinstance(event, ConsoleOutput):
                output += event.data
        assert guest.result is not None
        assert guest.result.outcome is Outcome.POWEROFF, guest.result.message
    lines = [line.removeprefix("zseal-test-guest: ") for line in output.decode().splitlines()]
    assert lines[:2] == ["hello", "facility 158 yes"]
    assert lines[2].endswith(WORDS.decode())
    assert lines[3:] == [
        "share pages=2 of 2 address=0x200000 cc=0 rc=0001 rrc=0000 intact=2",
        "unshare pages=1 of 1 address=0x200000 cc=0 rc=0001 rrc=0000 intact=1",
    ]


def test_image_of_another_builder_is_refused_elsewhere(tmp_path: Path, machine: Machine) -> None:
    """Its own loader says nothing of the reason: the result does."""
    path = next(iter(IMAGES.values())).build(tmp_path, Machine.create(tmp_path / "theirs"))
    with Guest(path, machine=machine, memory=64 << 20, timeout=PATIENCE) as guest:
        result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.REFUSED
    assert result.refusal is not None
    assert (result.refusal.rc, result.refusal.rrc) == (0x108, 5)

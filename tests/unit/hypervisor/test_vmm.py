"""Protecting a guest's memory by the ultravisor's real calls, without anything that executes it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.waiting import PATIENCE
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys
from zseal.crypto.xts import XtsPages
from zseal.engine.memory import SharedMemory
from zseal.errors import InputError, UsageError
from zseal.formats.ipib import Ipib
from zseal.guest.host_view import HostView
from zseal.guest.image import inspect_image
from zseal.hypervisor.diag308 import Refused
from zseal.hypervisor.storage import HostStorage
from zseal.hypervisor.uvcalls import CallFailed
from zseal.hypervisor.vmm import Step, Vmm
from zseal.image.build import BuiltImage, build_image
from zseal.testguest import kernel
from zseal.ultravisor.tables import PageState, States, blank_states

SIZE = 32 * MIB
LEFT_BEHIND = b"left behind by the bootloader"


@pytest.fixture(scope="module")
def keys() -> MachineKeys:
    return MachineKeys(ec.generate_private_key(ec.SECP521R1()), None)


@pytest.fixture(scope="module")
def image(keys: MachineKeys) -> tuple[bytes, BuiltImage]:
    file = io.BytesIO()
    built = build_image(file, kernel=kernel(), cmdline=b"secret words", host_keys=[keys.host.public_key()])
    return file.getvalue(), built


class Loaded:
    """A machine with the image in its memory, as stage3a finds it."""

    def __init__(
        self,
        keys: MachineKeys,
        image: tuple[bytes, BuiltImage],
        cpus: int = 2,
        blank: Callable[[int], States] = blank_states,
    ) -> None:
        self.ram = SharedMemory(SIZE)
        self.vmm = Vmm(self.ram, cpus, keys, blank_states=blank)
        self.load(image)

    def load(self, image: tuple[bytes, BuiltImage]) -> None:
        data, built = image
        self.ram.write(0, data)
        self.ram.write(0x1800000, LEFT_BEHIND)
        self.block = Ipib.build(
            header_address=built.header_address,
            header_size=built.ipib.header.header_size,
            components=built.ipib.components,
        )

    def close(self) -> None:
        self.vmm.close()
        self.ram.close()


@pytest.fixture
def loaded(keys: MachineKeys, image: tuple[bytes, BuiltImage]) -> Iterator[Loaded]:
    machine = Loaded(keys, image)
    yield machine
    machine.close()


def test_a_protected_guest_has_its_components_and_zeros(loaded: Loaded, image: tuple[bytes, BuiltImage]) -> None:
    entry = loaded.vmm.protect(loaded.block)
    assert entry.address == image[1].components[-1].address
    assert loaded.vmm.protected
    first = image[1].components[0]
    assert loaded.ram.read(first.address, 0x1000) == kernel()[:0x1000]
    covered = sum(part.size for part in image[1].components)
    zero = bytes(PAGE_SIZE)
    pages = [loaded.ram.read(at, PAGE_SIZE) for at in range(0, SIZE, PAGE_SIZE)]
    assert sum(page != zero for page in pages) <= covered // PAGE_SIZE
    counts = loaded.vmm.page_counts()
    assert counts["private"] == SIZE // PAGE_SIZE
    assert sum(counts.values()) == SIZE // PAGE_SIZE


def test_an_expected_image_is_protected_like_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: MachineKeys, image: tuple[bytes, BuiltImage]
) -> None:
    data, built = image
    path = tmp_path / "image"
    path.write_bytes(data)
    for flipped in (None, 0x16000):
        machine, boot = Loaded(keys, image), inspect_image(path)
        try:
            boot.announce(machine.vmm)
            if flipped is None:
                ahead = machine.vmm.ultravisor._machine.unpack_ahead
                assert ahead is not None
                ahead._thread.join(PATIENCE)
                with monkeypatch.context() as patch:
                    patch.setattr(XtsPages, "decrypt_run", None)  # all is decrypted
                    entry = machine.vmm.protect(machine.block)
                assert entry.address == built.components[-1].address
                assert machine.ram.read(built.components[0].address, 0x1000) == kernel()[:0x1000]
            else:  # what is in storage counts
                machine.ram.write(flipped, bytes([data[flipped] ^ 1]))
                with pytest.raises(Refused):
                    machine.vmm.protect(machine.block)
                assert machine.vmm.refusal is not None
                assert (machine.vmm.refusal.rc, machine.vmm.refusal.rrc) == (0x102, 0x1B)
        finally:
            machine.close()
            boot.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "zseal-unpack-ahead"]


def test_the_calls_are_those_of_a_real_hypervisor(loaded: Loaded) -> None:
    loaded.vmm.protect(loaded.block)
    calls = loaded.vmm.ultravisor.snapshot().calls
    expected = {
        "INIT_UV": 1,
        "CREATE_SEC_CONF": 1,
        "CREATE_SEC_CPU": 2,
        "SET_SEC_CONF_PARAMS": 1,
        "VERIFY_IMG": 1,
        "CPU_SET_STATE": 1,
    }
    assert {name: count for name, count in calls.items() if name != "UNPACK_IMG"} == expected
    assert set(loaded.vmm.seconds) == {"create", "set-parameters", "unpack", "verify", "adopt"}


def test_donated_storage_is_out_of_the_host_s_reach(loaded: Loaded) -> None:
    loaded.vmm.protect(loaded.block)
    with pytest.raises(ProgramInterruption) as caught:
        loaded.vmm.ultravisor.host.read(loaded.vmm.storage.base, 8)
    assert caught.value.code is ProgramCode.SECURE_STORAGE_ACCESS
    with pytest.raises(ProgramInterruption):
        loaded.vmm.ultravisor.host.write(0x15000, b"x")


@pytest.mark.parametrize(
    ("offset", "step", "rc", "rrc"),
    [(0x16000, Step.VERIFY, 0x102, 0x1B), (0x14000, Step.SET_SEC_PARMS, 0x10A, 0x01)],
)
def test_a_refusal_leaves_nothing_decrypted(
    keys: MachineKeys, image: tuple[bytes, BuiltImage], offset: int, step: Step, rc: int, rrc: int
) -> None:
    data = bytearray(image[0])
    built = image[1]
    if step is Step.SET_SEC_PARMS:
        offset = built.header_address
    data[offset] ^= 1
    machine = Loaded(keys, (bytes(data), built))
    with pytest.raises(Refused) as caught:
        machine.vmm.protect(machine.block)
    refusal = machine.vmm.refusal
    assert refusal is not None
    assert (refusal.step, refusal.rc, refusal.rrc) == (step, rc, rrc)
    assert caught.value.code == step << 48 | rrc << 32 | rc << 16 | 0xA02
    assert not machine.vmm.protected
    assert machine.vmm.page_counts() == {}
    first = built.components[0]
    if step is Step.VERIFY:
        assert machine.ram.read(first.address, first.size) == bytes(first.size)
    assert machine.ram.read(0x1800000, len(LEFT_BEHIND)) == LEFT_BEHIND  # what is no component stays
    machine.close()


def test_an_image_for_another_machine_names_the_host_key(image: tuple[bytes, BuiltImage]) -> None:
    machine = Loaded(MachineKeys(ec.generate_private_key(ec.SECP521R1()), None), image)
    with pytest.raises(Refused):
        machine.vmm.protect(machine.block)
    assert machine.vmm.refusal is not None
    assert "host key" in machine.vmm.refusal.message
    machine.close()


def test_a_header_outside_memory_is_refused(loaded: Loaded) -> None:
    components = loaded.block.components
    for address, size in ((SIZE - 0x100, 640), (0, 0x10000), (1 << 50, 640)):
        block = Ipib.build(header_address=address, header_size=size, components=components)
        with pytest.raises(Refused):
            loaded.vmm.protect(block)
        assert loaded.vmm.refusal is not None
        assert loaded.vmm.refusal.step is Step.SET_SEC_PARMS


def test_a_guest_can_be_protected_again_and_again(loaded: Loaded, image: tuple[bytes, BuiltImage]) -> None:
    ultravisor = loaded.vmm.ultravisor
    for _ in range(5):
        loaded.load(image)
        loaded.vmm.protect(loaded.block)
        donated = ultravisor.snapshot().donated_bytes
        loaded.vmm.destroy()
        assert not loaded.vmm.protected
        assert loaded.ram.read(0, SIZE).count(0) == SIZE
    assert ultravisor.snapshot().donated_bytes < donated
    assert ultravisor.snapshot().configurations == ()
    assert ultravisor.snapshot().calls["INIT_UV"] == 1


def test_page_states_are_kept_where_they_are_wanted(keys: MachineKeys, image: tuple[bytes, BuiltImage]) -> None:
    places = []

    def blank(pages: int) -> States:
        places.append(np.zeros(pages, np.uint8))
        return places[-1]

    machine = Loaded(keys, image, blank=blank)
    for count in (1, 2):
        machine.vmm.protect(machine.block)
        assert len(places) == count
        assert len(places[-1]) == SIZE // PAGE_SIZE
        assert (places[-1] == PageState.PRIVATE).all()
        machine.vmm.destroy()
        machine.load(image)
    machine.close()


@pytest.mark.parametrize("clear", [True, False])
def test_a_guest_s_own_reset_keeps_it_protected(loaded: Loaded, clear: bool) -> None:
    loaded.vmm.protect(loaded.block)
    loaded.ram.write(0, (0x0008000180000000 | 0x12340).to_bytes(8, "big"))
    loaded.vmm.reset_guest(cpu=0, clear=clear)
    assert loaded.vmm.protected
    calls = loaded.vmm.ultravisor.snapshot().calls
    resets = {name for name in calls if name.startswith("CPU_RESET")}
    assert resets == ({"CPU_RESET_CLEAR"} if clear else {"CPU_RESET", "CPU_RESET_INITIAL"})
    assert loaded.vmm.page_counts()["shared"] == 0


def test_a_page_that_left_comes_back_unless_it_was_changed(loaded: Loaded) -> None:
    loaded.vmm.protect(loaded.block)
    ultravisor = loaded.vmm.ultravisor
    address = loaded.block.components[0].address
    before = loaded.ram.read(address, PAGE_SIZE)
    ultravisor.host.export_run(address, 2 * PAGE_SIZE)
    assert loaded.ram.read(address, PAGE_SIZE) != before
    loaded.vmm.import_page(address + 8)
    assert loaded.ram.read(address, PAGE_SIZE) == before
    with loaded.ram.view(address + PAGE_SIZE, 1) as view:
        view[0] ^= 1
    with pytest.raises(CallFailed) as caught:
        loaded.vmm.import_page(address + PAGE_SIZE)
    assert (caught.value.rc, caught.value.rrc) == (0x108, 1)


def test_the_host_view_is_ciphertext_and_leaves_the_page(loaded: Loaded) -> None:
    host = HostView(loaded.vmm.host_side)
    assert host.find(LEFT_BEHIND) == 0x1800000  # plain before the guest is protected
    loaded.vmm.protect(loaded.block)
    address = loaded.block.components[0].address
    plain = loaded.ram.read(address, PAGE_SIZE)
    seen = host.read_memory(address, PAGE_SIZE)
    assert seen != plain
    assert loaded.ram.read(address, PAGE_SIZE) == plain
    assert host.find(plain[:64]) is None
    assert host.read_memory(address + 100, 50) != plain[100:150]
    for bad in ((-1, 1), (SIZE, 1), (0, SIZE + 1)):
        with pytest.raises(InputError):
            host.read_memory(*bad)


def test_host_storage_has_a_hole_between_guest_and_hypervisor() -> None:
    ram = SharedMemory(2 * MIB)
    storage = HostStorage(ram, 3 * PAGE_SIZE)
    assert storage.base == 2 << 30
    assert storage.size == storage.base + MIB
    storage.write(storage.base + 4, b"own")
    storage.write(4, b"guest")
    assert (storage.read(storage.base + 4, 3), ram.read(4, 5)) == (b"own", b"guest")
    for address, length in ((2 * MIB, 1), (storage.base - 1, 2), (storage.size, 1), (2 * MIB - 1, 2), (-1, 1)):
        with pytest.raises(ProgramInterruption):
            storage.read(address, length)
    storage.clear(storage.base, PAGE_SIZE)
    storage.write(storage.base + PAGE_SIZE, b"xyz")
    storage.clear(storage.base + PAGE_SIZE + 1, 1)
    assert storage.read(storage.base, 8) == bytes(8)
    assert storage.read(storage.base + PAGE_SIZE, 3) == b"x\0z"
    storage.close()
    storage.close()
    ram.close()


def test_a_protected_guest_has_no_more_cpus_than_its_block_of_them_has_room_for(keys: MachineKeys) -> None:
    ram = SharedMemory(SIZE)
    try:
        Vmm(ram, 247, keys).close()
        for cpus in (248, 1000):
            with pytest.raises(UsageError, match=f"1 to 247 CPUs, not {cpus}"):
                Vmm(ram, cpus, keys)
    finally:
        ram.close()

"""Observable promises 27 to 40: headers, unpacking, verification."""

from __future__ import annotations

import dataclasses
import gc
import gzip
import json
import secrets
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests import paths
from tests.unit.ultravisor.process_memory import keys_in_memory
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.crypto.header import open_header, seal_header
from zseal.crypto.keyexchange import CURVE, MachineKeys, make_slot, public_coordinates
from zseal.formats.se_header import FixedPart, PlainFlags, SecretArea, SecretFlags, SeHeader
from zseal.formats.uv_codes import Command, PageCall, ResponseCode, SetParameters, VerifyImage
from zseal.formats.uvcb import SetParametersUvcb, UnpackUvcb
from zseal.hypervisor.uvcalls import CallFailed
from zseal.image.read import read_image
from zseal.model.guest import ModelGuest
from zseal.model.image import ModelComponent, ModelImage, seal_image
from zseal.model.machine import ModelMachine
from zseal.secret import Secret
from zseal.ultravisor import Settings, UvcRefusal, accept_header, check_digests

VECTORS = paths.VECTORS / "se-image"
KERNEL = b"Linux version 6.12 " * 1000
CONTENTS = [(0x10000, KERNEL), (0x20000, b"root=/dev/vda"), (0x30000, b"\0" * 9000), (0x40000, b"stage3b" * 700)]


def _other_key() -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(CURVE()).public_key()


def _refusal(action: Callable[[], object]) -> ResponseCode:
    with pytest.raises(UvcRefusal) as caught:
        action()
    assert f"{caught.value.rc:#06x}" in str(caught.value)
    return caught.value.answer


def _refused(machine: ModelMachine, image: ModelImage) -> tuple[int, int]:
    configuration = machine.host.create(2 * MIB, 1)
    with pytest.raises(CallFailed) as caught:
        machine.host.protect(configuration, image)
    machine.host.destroy(configuration)
    return caught.value.rc, caught.value.rrc


@pytest.mark.parametrize("name", ["kat1", "kat2", "kat3"])
def test_images_of_other_tools_are_accepted(name: str) -> None:
    record = json.loads((VECTORS / "se-kat1.json").read_text())["inputs"]
    host_key = load_pem_private_key((VECTORS / "se-hostkey.pem").read_bytes(), None)
    second = load_pem_private_key(record["host_key_2_pem"].encode(), None)
    assert isinstance(host_key, ec.EllipticCurvePrivateKey)
    assert isinstance(second, ec.EllipticCurvePrivateKey)
    data = gzip.decompress((VECTORS / f"se-{name}.img.gz").read_bytes())
    image = read_image(data)
    parts = tuple(
        ModelComponent(
            part.address,
            part.tweak_prefix,
            data[image.base + part.address : image.base + part.address + part.size].ljust(part.size, b"\0"),
        )
        for part in image.components
    )
    model = ModelImage(image.header.pack(), parts, Secret(b""))
    machine = ModelMachine(keys=MachineKeys(host_key))
    guest = ModelGuest(machine, memory=2 * MIB, image=model)
    assert guest.start().address == parts[-1].address
    kernel = bytes.fromhex(record["kernel_hex"])
    assert guest.read(parts[0].address, len(kernel)) == kernel
    machine.close()
    if name == "kat1":
        accepted = accept_header(model.header, MachineKeys(second))
        assert accepted.cck == Secret(bytes.fromhex(record["cck_hex"]))
        assert accepted.scf == int(record["scf_hex"], 16)


def test_header_of_genprotimg_is_accepted() -> None:
    record = json.loads((VECTORS / "se-hdr-genprotimg-2.35.json").read_text())
    host_key = load_pem_private_key((VECTORS / "se-hostkey.pem").read_bytes(), None)
    assert isinstance(host_key, ec.EllipticCurvePrivateKey)
    accepted = accept_header((VECTORS / "se-hdr-genprotimg-2.35.bin").read_bytes(), MachineKeys(host_key))
    assert accepted.cck.reveal().hex() == record["cck"]
    assert accepted.image_key.reveal().hex() == record["xts"]
    assert accepted.psw.address == int(record["psw_addr"], 16)
    assert accepted.digests.nep == record["nep"]
    assert accepted.tag.hex() == record["tag"]
    assert accepted.host_key_hash.hex() == record["phkh"]


def test_promise_27_image_for_another_host_key_is_refused(machine: ModelMachine) -> None:
    assert _refused(machine, seal_image(CONTENTS, [_other_key()])) == (0x108, 5)


def test_promise_28_multiple_recipients(machine: ModelMachine) -> None:
    image = seal_image(CONTENTS, [_other_key(), _other_key(), machine.public_key])
    assert ModelGuest(machine, image=image).start().address == 0x40000


def test_promise_29_backup_key(machine: ModelMachine) -> None:
    assert machine.keys.backup is not None
    backup = machine.keys.backup.public_key()
    allowed = seal_image(CONTENTS, [backup], pcf=PlainFlags.BACKUP_KEYS)
    ModelGuest(machine, image=allowed).start()
    assert _refused(machine, seal_image(CONTENTS, [backup])) == (0x108, 5)
    assert _refused(machine, seal_image(CONTENTS, [_other_key()], pcf=PlainFlags.BACKUP_KEYS)) == (0x108, 0x34)
    without = MachineKeys(machine.keys.host)
    answer = _refusal(lambda: accept_header(allowed.header, without))
    assert answer is SetParameters.HOST_KEY


def test_promise_30_header_tamper_anywhere_is_refused(machine_keys: MachineKeys) -> None:
    header = seal_image([(0, b"x")], [machine_keys.host.public_key(), _other_key()]).header
    accept_header(header, machine_keys)
    for at in range(len(header)):
        flipped = bytearray(header)
        flipped[at] ^= 1 << at % 8
        with pytest.raises(UvcRefusal):
            accept_header(bytes(flipped), machine_keys)
    for size in range(0, len(header), 7):
        with pytest.raises(UvcRefusal):
            accept_header(header[:size], machine_keys)


def _patched(header: bytes, **changes: int | bytes) -> bytes:
    fixed = dataclasses.replace(FixedPart.unpack(header), **changes)  # type: ignore[arg-type]  # values by field name
    return fixed.pack() + header[FixedPart.SIZE :]


def test_promise_31_header_version_flags_and_sizes(machine: ModelMachine) -> None:
    keys, header = machine.keys, seal_image(CONTENTS, [machine.public_key]).header
    for changes, answer in (
        ({"version": 0x200}, SetParameters.VERSION),
        ({"pcf": 1 << 63}, SetParameters.PLAINTEXT_FLAG),
        ({"sea": 0}, SetParameters.ENCRYPTED_SIZE),
        ({"sea": 120}, SetParameters.ENCRYPTED_SIZE),
        ({"sea": 1 << 60}, SetParameters.ENCRYPTED_SIZE),
        ({"sea": 144}, SetParameters.HEADER_SIZE),
        ({"nks": 0}, SetParameters.NO_KEY_SLOTS),
        ({"nks": 2}, SetParameters.HEADER_SIZE),
        ({"nks": 1 << 63}, SetParameters.HEADER_SIZE),
        ({"sehs": 641}, SetParameters.HEADER_SIZE),
        ({"sehs": 8193}, SetParameters.HEADER_SIZE),
        ({"magic": b"IBMSecEy"}, SetParameters.MAGIC),
        ({"customer_key": bytes(160)}, SetParameters.CUSTOMER_KEY),
    ):
        changed = _patched(header, **changes)
        assert _refusal(lambda changed=changed: accept_header(changed, keys)) is answer  # type: ignore[misc]  # bound now
    old = Settings(plaintext_flags=0)
    flagged = seal_image(CONTENTS, [machine.public_key], pcf=PlainFlags.DUMP).header
    assert _refusal(lambda: accept_header(flagged, keys, settings=old)) is SetParameters.PLAINTEXT_FLAG
    secret = seal_image(CONTENTS, [machine.public_key], scf=1 << 60).header
    assert _refusal(lambda: accept_header(secret, keys)) is SetParameters.SECRET_FLAG
    known = seal_image(CONTENTS, [machine.public_key], scf=SecretFlags.CCK_UPDATE).header
    assert accept_header(known, keys).scf == SecretFlags.CCK_UPDATE


def test_header_that_crosses_into_bad_storage_is_not_accessible(machine: ModelMachine) -> None:
    configuration = machine.host.create(MIB, 0)
    header = seal_image(CONTENTS, [machine.public_key]).header
    donated = configuration.base_frame << PAGE_SHIFT
    for address, length in ((donated - 320, len(header)), (machine.storage.size - 100, len(header))):
        if address == donated - 320:
            machine.ultravisor.host.write(address, header[:320])
        block = SetParametersUvcb.call(
            Command.SET_SEC_CONF_PARAMS,
            guest_handle=configuration.handle,
            sec_header_origin_virt=address,
            sec_header_len=length,
        )
        assert machine.host.issue(block)[1].rc == SetParameters.ACCESS.rc
    block = SetParametersUvcb.call(Command.SET_SEC_CONF_PARAMS, guest_handle=configuration.handle, sec_header_len=8193)
    answer = machine.host.issue(block)[1]
    assert (answer.rc, answer.rrc) == (0x10A, 0x31)
    machine.host.set_parameters(configuration, header)


def test_promise_32_customer_key_is_validated(machine_keys: MachineKeys) -> None:
    header = seal_image(CONTENTS, [machine_keys.host.public_key()]).header
    point = bytearray(FixedPart.unpack(header).customer_key)
    point[-1] ^= 1
    answer = _refusal(lambda: accept_header(_patched(header, customer_key=bytes(point)), machine_keys))
    assert (answer.rc, answer.rrc) == (0x108, 0xB)


def test_swapped_customer_key_and_damaged_slot_are_refused(machine_keys: MachineKeys) -> None:
    header = seal_image(CONTENTS, [machine_keys.host.public_key()]).header
    foreign = _patched(header, customer_key=public_coordinates(_other_key()))
    assert _refusal(lambda: accept_header(foreign, machine_keys)) is SetParameters.KEY_SLOT
    damaged = bytearray(header)
    damaged[-1] ^= 1
    assert _refusal(lambda: accept_header(bytes(damaged), machine_keys)) is SetParameters.AUTHENTICATION


def test_optional_items_and_equal_key_halves_are_refused(machine: ModelMachine) -> None:
    header_key, customer = Secret(secrets.token_bytes(32)), ec.generate_private_key(CURVE())
    fixed = FixedPart.unpack(seal_image(CONTENTS, [machine.public_key]).header)
    fixed = dataclasses.replace(fixed, customer_key=public_coordinates(customer.public_key()))
    area = SecretArea(cck=Secret(bytes(32)), image_key=Secret(bytes(64)), psw_mask=0, psw_address=0, scf=SecretFlags(0))
    header = seal_header(fixed, (make_slot(customer, machine.public_key, header_key),), area, header_key)
    assert open_header(header, header_key).psw_address == 0
    configuration = machine.host.create(MIB, 0)
    with pytest.raises(CallFailed) as caught:
        machine.host.set_parameters(configuration, header.pack())
    assert caught.value.rc == SetParameters.RESERVED.rc


@pytest.mark.parametrize("number", range(len(CONTENTS)))
def test_promise_33_every_component_page_is_verified(machine: ModelMachine, number: int) -> None:
    image = seal_image(CONTENTS, [machine.public_key])
    parts = list(image.components)
    stored = bytearray(parts[number].stored)
    stored[secrets.randbelow(len(stored))] ^= 0x10
    parts[number] = dataclasses.replace(parts[number], stored=bytes(stored))
    assert _refused(machine, dataclasses.replace(image, components=tuple(parts))) == (0x102, 0x1B)
    assert machine.ultravisor.host.read(0, 32 * MIB).find(b"Linux version") < 0


def test_promise_34_moved_component_is_detected(machine: ModelMachine) -> None:
    image = seal_image(CONTENTS, [machine.public_key])
    parts = list(image.components)
    parts[1] = dataclasses.replace(parts[1], address=0x28000)
    assert _refused(machine, dataclasses.replace(image, components=tuple(parts))) == (0x102, 0x1A)


def test_promise_35_wrong_tweak_is_detected(machine: ModelMachine) -> None:
    image = seal_image(CONTENTS, [machine.public_key])
    parts = list(image.components)
    parts[2] = dataclasses.replace(parts[2], prefix=parts[2].prefix + 1)
    assert _refused(machine, dataclasses.replace(image, components=tuple(parts))) == (0x102, 0x1C)


def test_promise_36_missing_and_extra_pages_are_detected(machine: ModelMachine) -> None:
    image = seal_image(CONTENTS, [machine.public_key])
    parts = list(image.components)
    shorter = dataclasses.replace(parts[-1], stored=parts[-1].stored[:-PAGE_SIZE])
    assert _refused(machine, dataclasses.replace(image, components=(*parts[:-1], shorter))) == (0x102, 0x1D)
    longer = dataclasses.replace(parts[-1], stored=parts[-1].stored + bytes(PAGE_SIZE))
    assert _refused(machine, dataclasses.replace(image, components=(*parts[:-1], longer))) == (0x102, 0x1D)


def test_a_page_unpacked_twice_is_detected(machine: ModelMachine) -> None:
    image = seal_image(CONTENTS, [machine.public_key])
    configuration = machine.host.create(MIB, 1)
    machine.host.set_parameters(configuration, image.header)
    for part in image.components:
        machine.host.load(configuration, part.address, part.stored)
        machine.host.unpack(configuration, part.address, len(part.stored), part.prefix)
    last = image.components[-1]
    machine.host.unpack(configuration, last.address, PAGE_SIZE, last.prefix)
    with pytest.raises(CallFailed) as caught:
        machine.host.call_handle(Command.VERIFY_IMG, configuration.handle)
    assert (caught.value.rc, caught.value.rrc) == (0x102, 0x1D)


def test_promise_37_unpacked_pages_are_invisible_to_the_host(machine: ModelMachine) -> None:
    image = seal_image(CONTENTS, [machine.public_key])
    configuration = machine.host.create(MIB, 1)
    machine.host.set_parameters(configuration, image.header)
    part = image.components[0]
    machine.host.load(configuration, part.address, part.stored)
    machine.host.unpack(configuration, part.address, len(part.stored), part.prefix)
    frames = [configuration.space.resolve((part.address >> PAGE_SHIFT) + n) for n in range(4)]
    for frame in frames:
        with pytest.raises(ProgramInterruption) as caught:
            machine.ultravisor.host.read(frame << PAGE_SHIFT, 8)
        assert caught.value.code is ProgramCode.SECURE_STORAGE_ACCESS
    machine.ultravisor.host.export_run(frames[0] << PAGE_SHIFT, PAGE_SIZE)
    assert b"Linux" not in machine.ultravisor.host.read(frames[0] << PAGE_SHIFT, PAGE_SIZE)
    assert b"Linux" not in machine.ultravisor.host.view(frames[1] << PAGE_SHIFT, PAGE_SIZE)


def test_promise_38_image_with_plain_components(machine: ModelMachine) -> None:
    image = seal_image(CONTENTS, [machine.public_key], pcf=PlainFlags.NO_COMPONENT_ENCRYPTION)
    assert image.components[0].stored.startswith(KERNEL)
    guest = ModelGuest(machine, image=image)
    guest.start()
    assert guest.read(0x10000, len(KERNEL)) == KERNEL
    part = image.components[0]
    changed = dataclasses.replace(part, stored=b"x" + part.stored[1:])
    assert _refused(machine, dataclasses.replace(image, components=(changed, *image.components[1:]))) == (0x102, 0x1B)


def test_promise_39_tweaks_are_those_of_the_component(machine: ModelMachine) -> None:
    same = b"the same page".ljust(PAGE_SIZE, b".") * 3
    image = seal_image([(0x10000, same), (0x20000, same)], [machine.public_key])
    pages = {
        part.stored[at : at + PAGE_SIZE] for part in image.components for at in range(0, len(part.stored), PAGE_SIZE)
    }
    assert len(pages) == 6
    guest = ModelGuest(machine, image=image)
    guest.start()
    assert guest.read(0x10000, len(same)) == guest.read(0x20000, len(same)) == same


def test_promise_40_secrets_are_wiped(machine: ModelMachine) -> None:
    guest = ModelGuest(machine)
    guest.start()
    configuration = machine.ultravisor.firmware.configuration(guest.handle)
    assert configuration.accepted is not None
    kept = [configuration.accepted.cck, configuration.accepted.image_key]
    sealer = configuration.guest.sealer
    kept += [sealer._encryption, sealer._nonce]
    assert configuration.accepted.image_key.reveal() == bytes(64)  # gone as soon as the image is verified
    cck = guest.image.cck.reveal()
    assert any(secret.reveal() == cck for secret in kept)
    guest.stop()
    assert all(secret.reveal() == bytes(len(secret)) for secret in kept)
    guest.image.cck.wipe()
    gc.collect()
    for held in gc.get_objects():
        assert not (isinstance(held, Secret) and held.reveal() == cck)


def test_promise_40_no_key_is_left_in_the_memory_of_the_process() -> None:
    alive, over = keys_in_memory()
    assert alive == {"cck", "export", "integrity"}  # so the search does find what is there
    assert over == set()


def test_unpack_checks_its_address(machine: ModelMachine) -> None:
    configuration = machine.host.create(MIB, 0)
    machine.host.set_parameters(configuration, seal_image(CONTENTS, [machine.public_key]).header)

    def rc(gaddr: int) -> int:
        return machine.host.issue(UnpackUvcb.call(Command.UNPACK_IMG, guest_handle=configuration.handle, gaddr=gaddr))[
            1
        ].rc

    assert rc(0x10000) == PageCall.NOT_MAPPED.rc == 0x10A
    assert rc(MIB) == rc(8) == rc(1 << 63) == PageCall.OUTSIDE.rc
    configuration.space.map(0, configuration.base_frame)
    assert rc(0) == PageCall.FRAME_DONATED.rc
    configuration.space.map(0, 1 << 30)
    assert rc(0) == PageCall.NOT_MAPPED.rc


def test_check_digests_reports_the_first_difference(machine_keys: MachineKeys) -> None:
    accepted = accept_header(seal_image(CONTENTS, [machine_keys.host.public_key()]).header, machine_keys)
    right = accepted.digests
    check_digests(accepted, right)
    wrong = bytes(64)
    everything = dataclasses.replace(right, nep=0, ald=wrong, tld=wrong, pld=wrong)
    for found, answer in (
        (everything, VerifyImage.COUNT),
        (dataclasses.replace(everything, nep=right.nep), VerifyImage.ADDRESSES),
        (dataclasses.replace(everything, nep=right.nep, ald=right.ald), VerifyImage.TWEAKS),
        (dataclasses.replace(right, pld=wrong), VerifyImage.PAGES),
    ):
        assert _refusal(lambda found=found: check_digests(accepted, found)) is answer  # type: ignore[misc]
    assert SeHeader.parse(accepted.header.pack()) == accepted.header

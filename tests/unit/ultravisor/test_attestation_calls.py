"""Promises 79 to 88: attestation and secrets, each operand wrong in turn, in a guest of the model host."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from zseal.arch.storage import PAGE_SIZE
from zseal.attestation import AttestationFlags, AttestationRequestKeys, HeaderTags, create_attestation_request
from zseal.crypto.measurement import Measured
from zseal.errors import ZsealError
from zseal.formats.attestation_request import AttestationRequestBlock
from zseal.formats.se_header import SecretFlags, parse_header
from zseal.formats.uv_codes import Command
from zseal.formats.uvcb import (
    AddSecretUvcb,
    AttestUvcb,
    HandleUvcb,
    ListSecretsUvcb,
    RetrieveSecretUvcb,
    UvcbHeader,
)
from zseal.model import ModelGuest, ModelMachine, seal_image
from zseal.secret import Secret
from zseal.secrets import NewSecret, SecretList, create_add_secret_request, derive_extension_secret

REQUEST, MEASUREMENT, ADDITIONAL, LIST = 0x40000, 0x50000, 0x51000, 0x52000
OUTSIDE = 0x40000000
BlockT = TypeVar("BlockT", bound=UvcbHeader)
ALL = [flag for flag in AttestationFlags if flag is not AttestationFlags.NONCE]


@pytest.fixture(scope="module")
def machine() -> Iterator[ModelMachine]:
    made = ModelMachine()
    yield made
    made.close()


@pytest.fixture
def guest(machine: ModelMachine) -> Iterator[ModelGuest]:
    made = ModelGuest(machine)
    made.start()
    yield made
    machine.host.destroy(made.configuration)


def issue(guest: ModelGuest, block: BlockT) -> tuple[int, int, BlockT]:
    """Issue the call; return condition code, rc and the answered block."""
    cc, header = guest.issue(block)
    return cc, header.rc, type(block).unpack(guest.read(0x1000, block.SIZE))


def tags(guest: ModelGuest) -> HeaderTags:
    return HeaderTags.of(parse_header(guest.image.header))


def request(guest: ModelGuest, flags: Sequence[AttestationFlags] = ()) -> tuple[bytes, AttestationRequestKeys]:
    created = create_attestation_request([guest.machine.public_key], additional=flags)
    return created.file.arcb, created.keys


def attest(guest: ModelGuest, arcb: bytes, **changes: int | bytes) -> tuple[int, int, AttestUvcb]:
    guest.write(REQUEST, arcb)
    fields: dict[str, int | bytes] = {
        "arcb_addr_virt": REQUEST,
        "meas_len": 64,
        "meas_addr_virt": MEASUREMENT,
        "add_data_len": 0x1000,
        "add_data_addr_virt": ADDITIONAL,
    }
    fields |= changes
    block = AttestUvcb(length=AttestUvcb.SIZE, command=Command.RETR_ATTEST, **fields)  # type: ignore[arg-type]  # by name
    return issue(guest, block)


def test_promise_80_the_measurement_covers_image_instance_and_data(guest: ModelGuest) -> None:
    arcb, keys = request(guest, ALL)
    cc, rc, answer = attest(guest, arcb, user_data=b"hello".ljust(256, b"\0"), user_data_len=5)
    assert (cc, rc, answer.add_data_len) == (0, 1, 448)
    additional = guest.read(ADDITIONAL, 448)
    measured = Measured(
        tags=tags(guest), cuid=answer.config_uid, user_data=b"hello", nonce=keys.nonce, additional=additional
    )
    assert guest.read(MEASUREMENT, 64) == measured.measure(keys.measurement_key)


def test_promise_82_the_host_keys_of_image_and_request_are_reported(guest: ModelGuest) -> None:
    arcb, _ = request(guest, [AttestationFlags.IMAGE_PHKH, AttestationFlags.ATTESTATION_PHKH])
    attest(guest, arcb)
    expected = parse_header(guest.image.header).slots[0].phkh
    assert guest.read(ADDITIONAL, 64) == expected * 2
    assert AttestationRequestBlock.parse(arcb).slots[0].phkh == expected


def changed(arcb: bytes, offset: int, value: bytes) -> bytes:
    return arcb[:offset] + value + arcb[offset + len(value) :]


@pytest.mark.parametrize(
    ("offset", "value", "rc"),
    [
        (0x08, b"\0\0\2\0", 0x106),
        (0x27, b"\0", 0x108),
        (0x27, b"\2", 0x107),
        (0x30, b"\x80" + bytes(7), 0x10A),
        (0x30, bytes(7) + b"\1", 0x10A),
        (0x38, bytes(4), 0x10B),
        (0x38, b"\0\0\0\2", 0x10B),
        (0x2C, b"\0\0\0\x11", 0x109),
        (0x2C, b"\0\0\0\x40", 0x109),
        (0x0C, b"\0\0\1\x91", 0x107),
        (0x50, b"\1", 0x10C),
        (0xE0, b"\1", 0x10C),
        (0x150, b"\1\2\3\4\5\6\7\7\1\2", 0x10C),
    ],
)
def test_promise_81_a_bad_request_is_refused(guest: ModelGuest, offset: int, value: bytes, rc: int) -> None:
    arcb, _ = request(guest)
    guest.write(MEASUREMENT, b"m" * 64)
    assert attest(guest, changed(arcb, offset, value))[:2] == (1, rc)
    assert guest.read(MEASUREMENT, 64) == b"m" * 64


@pytest.mark.parametrize(
    ("changes", "rc"),
    [
        ({"cont_token": 0xFF}, 0x101),
        ({"user_data_len": 257}, 0x102),
        ({"arcb_addr_virt": OUTSIDE}, 0x103),
        ({"meas_addr_virt": OUTSIDE}, 0x104),
        ({"add_data_addr_virt": OUTSIDE}, 0x105),
        ({"meas_len": 0}, 0x10D),
        ({"meas_len": 63}, 0x10D),
        ({"add_data_len": 447}, 0x10E),
    ],
)
def test_promise_81_a_bad_operand_is_refused(guest: ModelGuest, changes: dict[str, int | bytes], rc: int) -> None:
    arcb, _ = request(guest, ALL)
    assert attest(guest, arcb, **changes)[:2] == (1, rc)


@pytest.mark.parametrize(("changes", "rc"), [({"meas_len": 0}, 0x10D), ({"add_data_len": 0}, 0x10E)])
def test_promise_81_buffers_are_checked_before_the_request_is_opened(
    guest: ModelGuest, changes: dict[str, int | bytes], rc: int
) -> None:
    arcb, _ = request(guest, ALL)
    assert attest(guest, changed(arcb, len(arcb) - 1, b"\0"), **changes)[:2] == (1, rc)


@pytest.mark.parametrize("length", [AttestUvcb.SIZE - 8, AttestUvcb.SIZE + 8])
def test_promise_81_the_block_has_exactly_its_length(guest: ModelGuest, length: int) -> None:
    block = AttestUvcb(length=length, command=Command.RETR_ATTEST)
    guest.write(0x1000, block.pack().ljust(length, b"\0"))
    guest.issue(block)
    assert UvcbHeader.unpack(guest.read(0x1000, 8)).rc == 0x0005


def test_a_request_without_nonce_is_legal(guest: ModelGuest) -> None:
    from zseal.crypto.keyexchange import public_coordinates
    from zseal.crypto.request import make_slots, seal_request
    from zseal.formats.attestation_request import AttestationPart, fixed_part
    from zseal.formats.request import RequestHeader

    customer, key, protection = ec.generate_private_key(ec.SECP521R1()), Secret(b"k" * 64), Secret(b"p" * 32)
    slots = make_slots(customer, [guest.machine.public_key], protection)
    header = RequestHeader(magic=bytes(8), rql=0xE0 + 80 + 64 + 16, iv=bytes(12), nks=1, sea=64)
    part = AttestationPart(flags=0, customer_key=public_coordinates(customer.public_key()))
    arcb = seal_request(fixed_part(header, part) + slots[0].pack(), bytes(12), key, protection).pack()
    cc, _, answer = attest(guest, arcb, add_data_len=0)
    assert (cc, answer.add_data_len) == (0, 0)
    assert guest.read(MEASUREMENT, 64) == Measured(tags=tags(guest), cuid=answer.config_uid).measure(key)


def test_every_guest_has_an_id_of_its_own_until_it_is_gone(machine: ModelMachine, guest: ModelGuest) -> None:
    arcb, _ = request(guest)
    first, again = (attest(guest, arcb)[2].config_uid for _ in range(2))
    other = ModelGuest(machine, image=guest.image)
    other.start()
    assert first == again != attest(other, arcb)[2].config_uid
    machine.host.destroy(other.configuration)


# --- secrets


def add(guest: ModelGuest, data: bytes, address: int = REQUEST) -> tuple[int, int]:
    if address == REQUEST:
        guest.write(REQUEST, data)
    return issue(guest, AddSecretUvcb.call(Command.ADD_SECRET, request_addr_virt=address))[:2]


def secret_request(guest: ModelGuest, secret: NewSecret | None = None, **settings: object) -> bytes:
    made = create_add_secret_request(
        [guest.machine.public_key],
        tags=settings.pop("tags", tags(guest)),  # type: ignore[arg-type]  # as the caller wants it
        secret=secret or NewSecret.association("a"),
        **settings,  # type: ignore[arg-type]  # likewise
    )
    return made.pack()


def listed(guest: ModelGuest, start: int = 0) -> tuple[int, int, SecretList]:
    block = ListSecretsUvcb.call(Command.LIST_SECRETS, start_index=start, list_addr_virt=LIST)
    cc, rc, _ = issue(guest, block)
    return cc, rc, SecretList.parse(guest.read(LIST, PAGE_SIZE))


def store_hash(guest: ModelGuest) -> bytes:
    arcb, _ = request(guest, [AttestationFlags.SECRET_STORE_HASH])
    assert attest(guest, arcb)[:2] == (0, 1)
    return guest.read(ADDITIONAL, 64)


def test_promise_83_a_request_for_another_image_changes_nothing(guest: ModelGuest) -> None:
    other = HeaderTags(pld=bytes(64), ald=bytes(64), tld=bytes(64), seht=bytes(16))
    before = store_hash(guest)
    assert add(guest, secret_request(guest, tags=other)) == (1, 0x10C)
    assert (store_hash(guest), listed(guest)[2].total) == (before, 0)


def test_a_request_for_another_instance_changes_nothing(guest: ModelGuest) -> None:
    uid = guest.machine.ultravisor.firmware.configuration(guest.handle).uid
    assert add(guest, secret_request(guest, cuid=bytes(16 * [7]))) == (1, 0x10C)
    assert add(guest, secret_request(guest, cuid=uid)) == (0, 1)
    assert listed(guest)[2].total == 1


def test_promise_85_a_long_list_comes_in_pages(machine: ModelMachine) -> None:
    guest = ModelGuest(machine)
    guest.start()
    for number in range(100):
        assert add(guest, secret_request(guest, NewSecret.plaintext(str(number), Secret(b"x")))) == (0, 1), number
    assert add(guest, secret_request(guest, NewSecret.plaintext("one more", Secret(b"x")))) == (1, 0x10B)
    assert add(guest, secret_request(guest, NewSecret.meta())) == (0, 1)
    cc, rc, page = listed(guest)
    assert (cc, rc, len(page.entries), page.total, page.next_index) == (1, 0x100, 85, 100, 85)
    cc, rc, page = listed(guest, 85)
    assert (cc, rc, [entry.index for entry in page.entries], page.next_index) == (0, 1, list(range(85, 100)), 0)
    machine.host.destroy(guest.configuration)


def test_promise_86_every_request_and_the_lock_change_the_hash(guest: ModelGuest) -> None:
    seen = {store_hash(guest)}
    for secret in (NewSecret.meta(), NewSecret.association("a"), NewSecret.association("a")):
        assert add(guest, secret_request(guest, secret)) == (0, 1)
        seen.add(store_hash(guest))
    assert issue(guest, HandleUvcb.call(Command.LOCK_SECRETS))[:2] == (0, 1)
    seen.add(store_hash(guest))
    assert len(seen) == 5
    assert issue(guest, HandleUvcb.call(Command.LOCK_SECRETS))[:2] == (1, 0x102)
    assert add(guest, secret_request(guest)) == (1, 0x102)


def test_promise_84_a_locked_store_can_be_listed_but_not_changed(guest: ModelGuest) -> None:
    assert add(guest, secret_request(guest)) == (0, 1)
    assert issue(guest, HandleUvcb.call(Command.LOCK_SECRETS))[:2] == (0, 1)
    assert add(guest, secret_request(guest)) == (1, 0x102)
    assert issue(guest, HandleUvcb.call(Command.LOCK_SECRETS))[:2] == (1, 0x102)
    assert listed(guest)[2].total == 1


def test_promise_87_the_extension_secret_is_fixed_by_the_first_request(guest: ModelGuest) -> None:
    first, other = Secret(b"1" * 32), Secret(b"2" * 32)
    assert add(guest, secret_request(guest, extension_secret=first)) == (0, 1)
    assert add(guest, secret_request(guest, extension_secret=other)) == (1, 0x10C)
    assert add(guest, secret_request(guest)) == (1, 0x10C)
    assert add(guest, secret_request(guest, extension_secret=first)) == (0, 1)


def test_promise_87_an_image_can_demand_the_derived_extension_secret(machine: ModelMachine) -> None:
    image = seal_image([(0x10000, b"x")], [machine.public_key], scf=SecretFlags.CCK_EXTENSION_SECRET)
    guest = ModelGuest(machine, image=image)
    guest.start()
    derived = derive_extension_secret(image.cck, tags(guest).seht)
    assert add(guest, secret_request(guest, extension_secret=Secret(b"1" * 32))) == (1, 0x10C)
    assert add(guest, secret_request(guest, extension_secret=derived)) == (0, 1)
    machine.host.destroy(guest.configuration)


def test_an_update_of_the_communication_key_needs_the_images_consent(machine: ModelMachine, guest: ModelGuest) -> None:
    update = NewSecret.update_cck(Secret(b"n" * 32))
    assert add(guest, secret_request(guest, update)) == (1, 0x109)
    image = seal_image([(0x10000, b"x")], [machine.public_key], scf=SecretFlags.CCK_UPDATE)
    willing = ModelGuest(machine, image=image)
    willing.start()
    assert add(willing, secret_request(willing, update)) == (0, 1)
    accepted = machine.ultravisor.firmware.configuration(willing.handle).accepted
    assert accepted is not None
    assert accepted.cck == Secret(b"n" * 32)
    assert listed(willing)[2].total == 0
    machine.host.destroy(willing.configuration)


@pytest.mark.parametrize(
    ("offset", "value", "rc"),
    [
        (0x08, b"\0\0\2\0", 0x104),
        (0x27, b"\0", 0x106),
        (0x30, b"\x40" + bytes(7), 0x107),
        (0x50A, b"\0\0", 0x109),
        (0x50A, b"\0\x0b", 0x109),
        (0x50C, b"\0\0\0\x1f", 0x10A),
        (0x0C, b"\0\0\5\x89", 0x105),
        (0x2C, b"\0\0\0\x41", 0x105),
        (0x220, b"\1", 0x108),
        (0x00, b"xsrcbM", 0x108),
    ],
)
def test_a_bad_add_secret_request_is_refused(guest: ModelGuest, offset: int, value: bytes, rc: int) -> None:
    assert add(guest, changed(secret_request(guest), offset, value)) == (1, rc)
    assert listed(guest)[2].total == 0


def test_secrets_are_refused_where_storage_is_missing(guest: ModelGuest) -> None:
    assert add(guest, b"", OUTSIDE) == (1, 0x103)
    assert issue(guest, ListSecretsUvcb.call(Command.LIST_SECRETS, list_addr_virt=OUTSIDE))[:2] == (1, 0x103)
    assert add(guest, secret_request(guest, NewSecret.plaintext("p", Secret(b"x" * 20)))) == (0, 1)
    block = RetrieveSecretUvcb.call(Command.RETR_SECRET, index=0, buffer_len=64, buffer_addr_virt=OUTSIDE)
    assert issue(guest, block)[:2] == (1, 0x102)


def retrieve(guest: ModelGuest, index: int, size: int) -> tuple[int, int]:
    block = RetrieveSecretUvcb.call(Command.RETR_SECRET, index=index, buffer_len=size, buffer_addr_virt=LIST)
    return issue(guest, block)[:2]


def test_secrets_come_back_as_their_type_allows(guest: ModelGuest) -> None:
    assert retrieve(guest, 0, 64) == (1, 0x10F)
    key = b"k" * 32
    for secret in (
        NewSecret.association("a"),
        NewSecret.plaintext("p", Secret(b"text")),
        NewSecret.aes("k", Secret(key)),
    ):
        assert add(guest, secret_request(guest, secret)) == (0, 1)
    assert retrieve(guest, 0, 64) == (1, 0x111)
    assert retrieve(guest, 3, 64) == (1, 0x110)
    assert retrieve(guest, 1, 15) == (1, 0x109)
    assert retrieve(guest, 1, 16) == (0, 1)
    assert guest.read(LIST, 16) == b"\0\4text".ljust(16, b"\0")
    assert retrieve(guest, 2, 64) == (0, 1)
    wrapped = guest.read(LIST, 64)
    assert key not in wrapped
    assert retrieve(guest, 2, 64) == (0, 1)
    assert guest.read(LIST, 64) == wrapped


def test_nothing_of_a_store_outlives_its_guest(machine: ModelMachine) -> None:
    guest = ModelGuest(machine)
    guest.start()
    marker = b"a marker of a secret"
    assert add(guest, secret_request(guest, NewSecret.plaintext("p", Secret(marker)))) == (0, 1)
    store = machine.ultravisor.firmware.configuration(guest.handle).secret_store
    picture = repr(machine.ultravisor.snapshot()) + repr(machine.ultravisor.log) + repr(store.stored)
    assert "marker" not in picture
    machine.host.destroy(guest.configuration)
    assert [each.value.reveal().strip(b"\0") for each in store.stored] == [b""]


def test_a_store_behaves_as_its_plain_model_does(machine: ModelMachine) -> None:
    """Random requests, locks and lists beside a list in Python."""
    random = np.random.default_rng(5)
    guest = ModelGuest(machine)
    guest.start()
    model: list[int] = []
    makers = (
        lambda: NewSecret.meta(),
        lambda: NewSecret.association("a"),
        lambda: NewSecret.plaintext("p", Secret(b"x" * int(random.integers(0, 60)))),
        lambda: NewSecret.aes("k", Secret(b"k" * 16)),
    )
    for _ in range(150):
        secret = makers[int(random.integers(0, 4))]()
        full = sum(each == 2 for each in model) >= 10 and secret.type == 2
        assert add(guest, secret_request(guest, secret)) == ((1, 0x10B) if full else (0, 1))
        if secret.type != 1 and not full:
            model.append(int(secret.type))
        if random.integers(0, 10) == 0:
            found = [entry.type for start in (0, 85) for entry in listed(guest, start)[2].entries]
            assert found[: len(model)] == model
    machine.host.destroy(guest.configuration)


def test_calls_of_the_guest_are_unknown_to_the_host(machine: ModelMachine) -> None:
    for command, size in ((Command.RETR_ATTEST, 0x188), (Command.ADD_SECRET, 0x48), (Command.LOCK_SECRETS, 0x40)):
        machine.ultravisor.host.write(0x4000, UvcbHeader(length=size, command=command).pack().ljust(size, b"\0"))
        assert machine.ultravisor.host.call(0x4000) == 1
        assert UvcbHeader.unpack(machine.ultravisor.host.read(0x4000, 8)).rc == 0x0002


def test_what_is_refused_is_said_in_words() -> None:
    from zseal.uvdevice import UltravisorRefusedError

    error: ZsealError = UltravisorRefusedError(Command.ADD_SECRET, 0x10C, 0)
    assert "not meant for this guest" in str(error)

"""Add-secret requests: the reference's own bytes, every type, and who can open them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.paths import VECTORS
from zseal.attestation import HeaderTags
from zseal.crypto.keyexchange import CURVE, public_key
from zseal.crypto.request import open_request
from zseal.errors import FormatError, InputError, VerificationError
from zseal.formats.add_secret_request import EXTENSION_SECRET_SIZE, fits
from zseal.hostkeys import Machine
from zseal.image import read_image
from zseal.secret import Secret
from zseal.secrets import (
    AddSecretFlags,
    AddSecretRequestBlock,
    AddSecretRequestKeys,
    NewSecret,
    SecretList,
    SecretType,
    create_add_secret_request,
    derive_extension_secret,
    plaintext_of,
    secret_id,
)

FOLDER = VECTORS / "attestation"
KNOWN = json.loads((VECTORS / "requests" / "asrcb.json").read_text())
MACHINE = Machine.load(FOLDER / "machine")
TAGS = HeaderTags.of(read_image(FOLDER / "se-header.bin").header)


def private_key(name: str) -> NewSecret:
    loaded = load_pem_private_key((FOLDER / "more" / "keys" / f"{name}.pem").read_bytes(), None)
    assert isinstance(loaded, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return NewSecret.ec(name, loaded)


def opened(block: AddSecretRequestBlock) -> tuple[bytes, bytes]:
    """Return secret and extension secret as the machine finds them."""
    plaintext = open_request(block.request, block.slots, block.part.customer_key, [MACHINE.keys.host]).plaintext
    data = plaintext.reveal()
    return data[:-EXTENSION_SECRET_SIZE], data[-EXTENSION_SECRET_SIZE:]


@pytest.mark.parametrize("case", KNOWN["cases"], ids=lambda case: case["name"])
def test_known_requests_are_built_byte_for_byte(case: dict[str, object]) -> None:
    common, inputs = KNOWN["common"], case["inputs"]
    assert isinstance(inputs, dict)
    customer = ec.derive_private_key(int(common["customer_private_scalar"], 16), CURVE())
    tags = HeaderTags(
        pld=bytes.fromhex(common["pld"]),
        ald=bytes.fromhex(common["ald"]),
        tld=bytes.fromhex(common["tld"]),
        seht=bytes.fromhex(common["se_header_tag"]),
    )
    secret = NewSecret.meta()
    if inputs["secret"] == "association":
        secret = NewSecret.association(common["association_name"], Secret(bytes.fromhex(common["association_secret"])))
    extension = None
    if inputs["extension_secret"] == "simple":
        extension = Secret(bytes.fromhex(inputs["extension_secret_value"]))
    elif inputs["extension_secret"] == "cck-derived":
        extension = derive_extension_secret(Secret(bytes.fromhex(inputs["cck"])), tags.seht)
    built = create_add_secret_request(
        [public_key(bytes.fromhex(common["host_public_coordinates"]))],
        tags=tags,
        secret=secret,
        cuid=bytes.fromhex(inputs["cuid"]),
        extension_secret=extension,
        flags=AddSecretFlags(int(inputs["flags"], 16)),
        keys=AddSecretRequestKeys(
            protection_key=Secret(bytes.fromhex(common["request_protection_key"])),
            iv=bytes.fromhex(common["iv"]),
            customer_key=customer,
        ),
    )
    assert built.pack().hex() == case["request"]
    assert built.tag.hex() == case["request_tag"]


WELL_FORMED = [path for path in sorted(FOLDER.rglob("*.asr")) if path.stem != "n-short"]


@pytest.mark.parametrize("path", WELL_FORMED, ids=lambda path: path.stem)
def test_the_references_requests_are_read_and_written_byte_for_byte(path: Path) -> None:
    block = AddSecretRequestBlock.parse(path.read_bytes())
    assert block.pack() == path.read_bytes()
    assert fits(SecretType(block.secret.type), block.secret.length)


def raw(name: str) -> Secret:
    return Secret((FOLDER / "more" / "keys" / name).read_bytes())


EVERY_TYPE = {
    "plain0": lambda: NewSecret.plaintext("plain0", raw("plain0.bin")),
    "plain1": lambda: NewSecret.plaintext("plain1", raw("plain1.bin")),
    "plain8190": lambda: NewSecret.plaintext("plain8190", raw("plain8190.bin")),
    "aes16": lambda: NewSecret.aes("aes16", raw("aes16.key")),
    "aes24": lambda: NewSecret.aes("aes24", raw("aes24.key")),
    "aes32": lambda: NewSecret.aes("aes32", raw("aes32.key")),
    "xts32": lambda: NewSecret.aes_xts("xts32", raw("xts32.key")),
    "xts64": lambda: NewSecret.aes_xts("xts64", raw("xts64.key")),
    "hmac64": lambda: NewSecret.hmac_sha("hmac64", raw("hmac64.key")),
    "hmac128": lambda: NewSecret.hmac_sha("hmac128", raw("hmac128.key")),
    "ec-prime256v1": lambda: private_key("ec-prime256v1"),
    "ec-secp384r1": lambda: private_key("ec-secp384r1"),
    "ec-secp521r1": lambda: private_key("ec-secp521r1"),
    "ec-ed25519": lambda: private_key("ec-ed25519"),
    "ec-ed448": lambda: private_key("ec-ed448"),
    "update-cck": lambda: NewSecret.update_cck(raw("newcck")),
}


@pytest.mark.parametrize("name", EVERY_TYPE)
def test_every_type_has_the_form_that_the_reference_gives_it(name: str) -> None:
    """What the machine decrypts from the reference's request is what ours would hold."""
    block = AddSecretRequestBlock.parse((FOLDER / "more" / "requests" / f"{name}.asr").read_bytes())
    ours = EVERY_TYPE[name]()
    value, _ = opened(block)
    assert (ours.type, ours.value.reveal()) == (block.secret.type, value)
    assert len(ours.secret_id) == len(block.secret_id)
    if name != "update-cck":
        assert block.secret_id in (ours.secret_id, hashlib.sha256(name.encode()).digest())


def test_the_extension_secret_is_derived_from_the_communication_key() -> None:
    known = derive_extension_secret(Secret(bytes(range(32))), bytes(range(0xA0, 0xB0)))
    assert known.reveal().hex() == "efb05d3a4f69d09bbce9be0a2f2c78ff827090163dd9a7ba7369449031cc2795"
    block = AddSecretRequestBlock.parse((FOLDER / "requests" / "s1-assoc.asr").read_bytes())
    assert opened(block)[1] == derive_extension_secret(Secret((FOLDER / "cck").read_bytes()), TAGS.seht).reveal()


def test_a_request_is_bound_to_image_and_instance() -> None:
    document = MACHINE.keys.host.public_key()
    bound = create_add_secret_request([document], tags=TAGS, secret=NewSecret.association("a"), cuid=bytes(range(16)))
    block = AddSecretRequestBlock.parse(bound.pack())
    assert (block.tags, block.part.cuid, block.slots[0].phkh) == (TAGS, bytes(range(16)), block.slots[0].phkh)
    free = create_add_secret_request([document], tags=TAGS, secret=NewSecret.meta())
    assert AddSecretRequestBlock.parse(free.pack()).part.cuid == bytes(16)


def test_ids_are_hashes_or_names() -> None:
    assert secret_id("example").hex() == "50d858e0985ecc7f60418aaf0cc5ab587f42c2570a884095a9e8ccacd0f6545c"
    assert secret_id("luks", use_name=True) == b"luks" + bytes(28)
    assert secret_id("x" * 40, use_name=True) == b"x" * 31 + b"\0"


@pytest.mark.parametrize("size", [0, 1, 13, 14, 15, 30, 8190])
def test_a_plaintext_comes_back_as_it_was(size: int) -> None:
    secret = NewSecret.plaintext("p", Secret(b"\x01" * size))
    assert len(secret.value) % 16 == 0
    assert plaintext_of(secret.value.reveal()) == b"\x01" * size


def test_what_is_not_framed_stays_raw() -> None:
    assert plaintext_of(bytes(32)) == bytes(32)
    assert plaintext_of(bytes(16)) == b""
    assert plaintext_of(b"\0\1xy") == b"\0\1xy"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NewSecret.plaintext("p", Secret(bytes(8191))), "at most 8190 bytes, not 8191"),
        (lambda: NewSecret.association("a", Secret(bytes(31))), "32 bytes, not 31"),
        (lambda: NewSecret.aes("a", Secret(bytes(20))), "16 or 24 or 32 bytes, not 20"),
        (lambda: NewSecret.aes_xts("a", Secret(bytes(48))), "32 or 64 bytes, not 48"),
        (lambda: NewSecret.hmac_sha("a", Secret(bytes(32))), "64 or 128 bytes, not 32"),
        (lambda: NewSecret.update_cck(Secret(bytes(16))), "32 bytes, not 16"),
        (lambda: NewSecret.ec("e", ec.generate_private_key(ec.SECP256K1())), "curve secp256k1"),
    ],
)
def test_secrets_of_another_size_are_refused(make: Callable[[], NewSecret], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_values_of_another_size_are_refused() -> None:
    host = [MACHINE.keys.host.public_key()]
    with pytest.raises(InputError, match="extension secret has 32 bytes, not 31"):
        create_add_secret_request(host, tags=TAGS, secret=NewSecret.meta(), extension_secret=Secret(bytes(31)))
    with pytest.raises(InputError, match="unique ID has 16 bytes, not 3"):
        create_add_secret_request(host, tags=TAGS, secret=NewSecret.meta(), cuid=bytes(3))


def test_damaged_requests_are_refused() -> None:
    good = (FOLDER / "requests" / "s1-assoc.asr").read_bytes()
    changes: tuple[tuple[Callable[[bytes], bytes], str], ...] = (
        (lambda data: data[:200], "200 are there"),
        (lambda data: b"asrcbX" + data[6:], "does not begin with asrcbM"),
        (lambda data: data + b"\0", "1417 are there"),
        (lambda data: data[:0x27] + b"\0" + data[0x28:], "no key slot"),
        (lambda data: data[:0x27] + b"\xff" + data[0x28:], "needs"),
        (lambda data: data[:0x2C] + b"\xff\xff\xff\xff" + data[0x30:], "does not fit"),
        (lambda data: data[:0x2C] + b"\0\0\0\1" + data[0x30:], "lengths do not fit"),
    )
    for change, message in changes:
        with pytest.raises(FormatError, match=message):
            AddSecretRequestBlock.parse(change(good))


def test_a_changed_request_is_not_opened() -> None:
    data = bytearray((FOLDER / "requests" / "s1-assoc.asr").read_bytes())
    data[0x220] ^= 1  # user data
    with pytest.raises(VerificationError):
        opened(AddSecretRequestBlock.parse(bytes(data)))


def test_the_list_of_a_guest_is_read() -> None:
    listed = SecretList.parse((FOLDER / "results" / "list1.bin").read_bytes())
    assert [(entry.index, SecretType(entry.type).text, entry.length) for entry in listed.entries] == [
        (0, "Association", 32),
        (1, "Association", 32),
        (2, "PLAINTEXT", 32),
        (3, "AES-256-KEY", 64),
    ]
    assert listed.total == 4
    with pytest.raises(FormatError, match="cut off"):
        SecretList.parse(b"\0\5" + bytes(14))

"""Verifying answers: those of a guest with the reference's tools are accepted, and no changed one is."""

import dataclasses
import random

import pytest

from tests.unit.attestation.conftest import FOLDER, RESPONSES, protection_key, response
from zseal.attestation import (
    AttestationFlags,
    HeaderTags,
    MeasurementMismatchError,
    ResponseFile,
    verify_attestation,
)
from zseal.crypto.measurement import Measured, secret_store_hash
from zseal.errors import FormatError, VerificationError
from zseal.formats.add_secret_request import AddSecretRequestBlock
from zseal.secret import Secret


def r(first: int, size: int) -> bytes:
    return bytes((first + at) % 256 for at in range(size))


def test_the_measurement_of_known_values() -> None:
    tags = HeaderTags(pld=r(0, 64), ald=r(0x40, 64), tld=r(0x80, 64), seht=r(0xC0, 16))
    measured = Measured(
        tags=tags, cuid=r(0xD0, 16), user_data=b"abc", nonce=Secret(r(0x70, 16)), additional=r(0x20, 32)
    )
    assert measured.measure(Secret(r(0x11, 64))).hex() == (
        "0efced41aa77deb73f8faed0c875223c8957e55e6b9a686f73a8c9f182dec444"
        "50517d0cb39bb6a6dbd233c5278482abd2e46e678d7dd31668c5576dbe095b1f"
    )


@pytest.mark.parametrize("name", RESPONSES)
def test_an_answer_of_a_guest_is_accepted(name: str, tags: HeaderTags) -> None:
    found = verify_attestation(response(name), tags=tags, protection_key=protection_key(name))
    assert found.cuid.hex() == "7f372bb32ce241d8635701a52c5636e9"
    assert found.user_data == (f"user data of {name[:2]}\n".encode() if name.endswith("-ud") else b"")
    names = [each for each, _ in found.fields.items()]
    assert names == ["image_phkh", "attestation_phkh", "secret_store_hash"][: {"a0": 0, "a1": 2, "a2": 3}[name[:2]]]


def test_the_hash_of_the_secret_store_follows_requests_and_lock(tags: HeaderTags) -> None:
    order = ["s0-meta", "s1-assoc", "s2-assoc", "s3-plain", "s4-aes", "s1-assoc", "s1-assoc"]
    requests = [AddSecretRequestBlock.parse((FOLDER / f"requests/{name}.asr").read_bytes()) for name in order]
    added = [block.request.tag for block in requests]
    states: tuple[tuple[str, list[bytes], bool], ...] = (
        ("a2-1", [], False),
        ("a2-2", added, False),
        ("a2-3", added, True),
    )
    for name, request_tags, locked in states:
        found = verify_attestation(response(name), tags=tags, protection_key=protection_key(name))
        assert found.fields.secret_store_hash == secret_store_hash(request_tags, locked=locked), name


def test_another_image_is_not_recognised(tags: HeaderTags) -> None:
    other = dataclasses.replace(tags, pld=bytes(64))
    with pytest.raises(MeasurementMismatchError, match="does not match") as caught:
        verify_attestation(response("a1-1"), tags=other, protection_key=protection_key("a1"))
    assert caught.value.exit_code == 2


def test_the_key_of_another_request_does_not_open_it(tags: HeaderTags) -> None:
    with pytest.raises(VerificationError, match="cannot be decrypted; give the protection key of the request"):
        verify_attestation(response("a1-1"), tags=tags, protection_key=protection_key("a0"))


@pytest.mark.parametrize("field", ["measurement", "cuid", "additional", "user_data"])
def test_any_changed_part_is_noticed(field: str, tags: HeaderTags) -> None:
    good = response("a1-1-ud")
    value = bytearray(getattr(good, field))
    value[-1] ^= 1
    changed = {"measurement": good.measurement, "cuid": good.cuid, "additional": good.additional} | {
        "user_data": good.user_data,
        field: bytes(value),
    }
    bad = ResponseFile(
        arcb=good.arcb,
        measurement=changed["measurement"],
        cuid=changed["cuid"],
        additional=changed["additional"],
        user_data=changed["user_data"],
    )
    with pytest.raises(MeasurementMismatchError):
        verify_attestation(bad, tags=tags, protection_key=protection_key("a1"))


def test_no_corrupted_answer_is_accepted(tags: HeaderTags) -> None:
    """Every byte that means something, at random places with random values; reserved ones may change nothing."""
    good = (FOLDER / "results" / "a2-2-ud.attresp").read_bytes()
    key, generator = protection_key("a2"), random.Random(1)
    original = verify_attestation(ResponseFile.parse(good), tags=tags, protection_key=key)
    refused = 0
    for _ in range(5_000):
        data = bytearray(good)
        for _ in range(generator.choice((1, 1, 1, 2, 8))):
            data[generator.randrange(len(data))] ^= generator.randrange(1, 256)
        if generator.random() < 0.1:
            data = data[: generator.randrange(len(data))]
        try:
            found = verify_attestation(ResponseFile.parse(bytes(data)), tags=tags, protection_key=key)
        except (FormatError, VerificationError):
            refused += 1
        else:
            assert found == original  # only reserved bytes of the file's header have changed
    assert refused > 4_500


def test_a_request_is_not_a_response() -> None:
    with pytest.raises(FormatError, match="holds no measurement: it is not a response"):
        ResponseFile.parse((FOLDER / "requests" / "a0.attreq").read_bytes())


def test_flags_without_a_name_are_kept() -> None:
    assert int(AttestationFlags(1 << 20) | AttestationFlags.NONCE) == 1 << 62 | 1 << 20

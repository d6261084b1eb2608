"""Creating requests: the reference's own layout, and only the machines that were named can open them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.paths import VECTORS
from zseal.attestation import (
    AttestationFlags,
    AttestationRequestKeys,
    RequestFile,
    ResponseFile,
    create_attestation_request,
    perform_attestation,
)
from zseal.crypto.keyexchange import key_hash, public_coordinates
from zseal.crypto.request import decrypt_request, open_request
from zseal.errors import FormatError, InputError, VerificationError
from zseal.formats.attestation_request import AttestationRequestBlock
from zseal.uvdevice import AttestationAnswer

FOLDER = VECTORS / "attestation"


def key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP521R1())


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.attreq")), ids=lambda path: path.stem)
def test_the_references_requests_are_read_and_written_byte_for_byte(path: Path) -> None:
    data = path.read_bytes()
    request = RequestFile.parse(data)
    block = AttestationRequestBlock.parse(request.arcb)
    assert request.pack() == data
    assert block.pack() == request.arcb


def test_given_the_same_random_values_the_same_request_results() -> None:
    keys, host = AttestationRequestKeys.generate(), key().public_key()
    first, second = (create_attestation_request([host], keys=keys).file.pack() for _ in range(2))
    assert first == second
    assert create_attestation_request([host]).file.pack() != first


def test_each_named_machine_can_open_a_request_and_no_other() -> None:
    hosts = [key(), key(), key()]
    created = create_attestation_request([host.public_key() for host in hosts[:2]])
    block = AttestationRequestBlock.parse(created.file.arcb)
    for host in hosts[:2]:
        opened = open_request(block.request, block.slots, block.part.customer_key, [host])
        assert opened.phkh == key_hash(host.public_key())
        assert opened.plaintext == decrypt_request(block.request, created.protection_key)
        expected = created.keys.measurement_key.reveal() + created.keys.nonce.reveal()
        assert opened.plaintext.reveal() == expected
    with pytest.raises(VerificationError, match="no key slot for this machine"):
        open_request(block.request, block.slots, block.part.customer_key, hosts[2:])


def test_a_customer_key_off_the_curve_is_refused() -> None:
    host = key()
    created = create_attestation_request([host.public_key()])
    block = AttestationRequestBlock.parse(created.file.arcb)
    off = public_coordinates(host.public_key())[:-1] + b"\x01"
    with pytest.raises(VerificationError, match="not a point on the curve"):
        open_request(block.request, block.slots, off, [host])


def test_the_file_says_how_much_the_answer_holds() -> None:
    host = key().public_key()
    for wanted, size in (((), 0), (list(AttestationFlags)[1:], 448), ((AttestationFlags.FIRMWARE_STATE,), 320)):
        file = create_attestation_request([host], additional=wanted).file
        assert (file.measurement_size, file.additional_size) == (64, size)
        assert AttestationRequestBlock.parse(file.arcb).flags & AttestationFlags.NONCE


def test_host_keys_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="at least one host key"):
        create_attestation_request([])
    with pytest.raises(InputError, match="room for 255 host keys, not for 256"):
        create_attestation_request([key().public_key()] * 256)
    with pytest.raises(InputError, match="secp256r1"):
        create_attestation_request([key(ec.SECP256R1()).public_key()])


class Echo:
    """Answers with the length of what it was asked for."""

    def attest(
        self, arcb: bytes, *, user_data: bytes, measurement_size: int, additional_size: int
    ) -> AttestationAnswer:
        return AttestationAnswer(b"m" * measurement_size, b"a" * additional_size, bytes(15) + b"\x01")

    def add_secret(self, request: bytes) -> None: ...
    def list_secrets(self) -> bytes:
        return b""

    def lock_secrets(self) -> None: ...
    def retrieve_secret(self, index: int, size: int) -> bytes:
        return b""


def test_a_guest_puts_its_answer_beside_the_unchanged_request() -> None:
    request = RequestFile.parse((FOLDER / "requests" / "a1.attreq").read_bytes())
    response = perform_attestation(request, Echo(), user_data=b"hello")
    again = ResponseFile.parse(response.pack())
    assert again == response
    assert (again.arcb, len(again.measurement), len(again.additional)) == (request.arcb, 64, 64)
    with pytest.raises(InputError, match="at most 256 bytes, not 257"):
        perform_attestation(request, Echo(), user_data=bytes(257))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "does not begin with pvattest"),
        (lambda data: data[:63], "cut off"),
        (lambda data: data[:-1], "cut off"),
        (lambda data: data[:8] + b"\0\0\2\0" + data[12:], "unknown version 0x200"),
        (lambda data: data[:0x18] + bytes(8) + data[0x20:], "no attestation request"),
        (lambda data: data[:0x1C] + b"\0\0\0\x10" + data[0x20:], "lies outside"),
        (lambda data: data[:0x18] + b"\x7f\0\0\0" + data[0x1C:], "at most 1048576"),
        (lambda data: data[:0x20] + bytes(8) + data[0x28:], "how long the measurement is"),
    ],
)
def test_damaged_files_are_refused_with_the_reason(change: Callable[[bytes], bytes], message: str) -> None:
    data = (FOLDER / "requests" / "a0.attreq").read_bytes()
    with pytest.raises(FormatError, match=message):
        RequestFile.parse(change(data))

"""A played guest answers what a guest with the reference's own tools answered, byte for byte."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import VECTORS
from zseal.arch.machine_model import MachineModel
from zseal.attestation import RequestFile, perform_attestation
from zseal.formats.add_secret_request import SecretType
from zseal.formats.attestation_file import ResponseFile
from zseal.hostkeys import Machine
from zseal.hypervisor.uvcalls import CallFailed
from zseal.model import PlayedGuest, seal_image
from zseal.secrets import AddSecretRequestBlock, SecretList, plaintext_of
from zseal.uvdevice import UltravisorRefusedError

FOLDER = VECTORS / "attestation"
HEADER = (FOLDER / "se-header.bin").read_bytes()
CUID = bytes.fromhex("7f372bb32ce241d8635701a52c5636e9")
MACHINE = Machine.load(FOLDER / "machine")
SECRETS = ("s0-meta", "s1-assoc", "s2-assoc", "s3-plain", "s4-aes")


@pytest.fixture
def guest() -> Iterator[PlayedGuest]:
    with PlayedGuest(MACHINE.keys, HEADER, cuid=CUID) as played:
        yield played


def request(name: str) -> bytes:
    return (FOLDER / "requests" / f"{name}.asr").read_bytes()


def refused(guest: PlayedGuest, name: str) -> int:
    with pytest.raises(UltravisorRefusedError) as caught:
        guest.add_secret(request(name))
    return caught.value.rc


def compare(guest: PlayedGuest, phase: int) -> None:
    for name in ("a0", "a1", "a2"):
        file = RequestFile.parse((FOLDER / "requests" / f"{name}.attreq").read_bytes())
        for suffix, user_data in (("", b""), ("-ud", f"user data of {name}\n".encode())):
            answer = perform_attestation(file, guest, user_data=user_data).pack()
            expected = (FOLDER / "results" / f"{name}-{phase}{suffix}.attresp").read_bytes()
            assert answer == expected, (name, phase, suffix)


def test_the_whole_life_of_the_recorded_guest_is_reproduced(guest: PlayedGuest) -> None:
    compare(guest, 1)
    assert SecretList.parse(guest.list_secrets()).total == 0
    for name, rc in (
        ("n-othermachine", 0x108),
        ("n-tampered", 0x108),
        ("n-otherimage", 0x10C),
        ("n-othercuid", 0x10C),
    ):
        assert refused(guest, name) == rc, name
    for name in SECRETS:
        guest.add_secret(request(name))
    listed = guest.list_secrets()
    assert (FOLDER / "results" / "list1.bin").read_bytes()[: len(listed)] == listed
    assert refused(guest, "n-otherext") == 0x10C
    guest.add_secret(request("s1-assoc"))
    guest.add_secret(request("s1-assoc"))
    compare(guest, 2)
    guest.lock_secrets()
    compare(guest, 3)
    assert refused(guest, "s0-meta") == 0x102
    with pytest.raises(UltravisorRefusedError) as caught:
        guest.lock_secrets()
    assert caught.value.rc == 0x102
    assert plaintext_of(guest.retrieve_secret(2, 32)) == (FOLDER / "keys" / "plain.txt").read_bytes()


def test_a_request_for_another_machine_is_refused(guest: PlayedGuest) -> None:
    file = RequestFile.parse((FOLDER / "requests" / "n-att-othermachine.attreq").read_bytes())
    with pytest.raises(UltravisorRefusedError) as caught:
        perform_attestation(file, guest)
    assert caught.value.rc == 0x10C


def test_the_firmware_state_says_that_it_is_software(guest: PlayedGuest) -> None:
    file = RequestFile.parse((FOLDER / "requests" / "n-att-firmware.attreq").read_bytes())
    answer = perform_attestation(file, guest)
    assert len(answer.additional) == 320
    assert answer.additional.startswith(b"software ultravisor (zseal), not hardware")


@pytest.mark.parametrize("path", sorted((FOLDER / "more" / "requests").glob("*.asr")), ids=lambda path: path.stem)
def test_every_type_of_the_reference_is_taken(path: Path) -> None:
    """Each in a guest of its own, since not all carry the same extension secret."""
    block = AddSecretRequestBlock.parse(path.read_bytes())
    kind = SecretType(block.secret.type)
    with PlayedGuest(MACHINE.keys, HEADER) as guest:
        if kind is SecretType.UPDATE_CCK:  # the image does not allow it
            with pytest.raises(UltravisorRefusedError) as caught:
                guest.add_secret(path.read_bytes())
            assert caught.value.rc == 0x109
            return
        guest.add_secret(path.read_bytes())
        listed = SecretList.parse(guest.list_secrets())
        assert [entry.type for entry in listed.entries] == ([kind] if kind.stored else [])
        if kind.retrievable:
            secret = guest.retrieve_secret(0, listed.entries[0].length)
            assert len(secret) == listed.entries[0].length
            if kind is SecretType.PLAINTEXT:
                assert plaintext_of(secret) == (FOLDER / "more" / "keys" / f"{path.stem}.bin").read_bytes()
        assert guest.configuration.secret_store.dump_disabled is (path.stem == "flags-disable-dump")


def test_an_attestation_request_with_two_slots_and_all_data(guest: PlayedGuest) -> None:
    file = RequestFile.parse((FOLDER / "more" / "requests" / "two-keys.attreq").read_bytes())
    assert len(perform_attestation(file, guest).additional) == file.additional_size == 448


@pytest.mark.parametrize(
    ("model", "attests", "types"),
    [(MachineModel.Z15, False, 0), (MachineModel.Z16, True, 2), (MachineModel.Z17, True, 16)],
)
def test_a_model_offers_what_its_generation_has(model: MachineModel, attests: bool, types: int) -> None:
    file = RequestFile.parse((FOLDER / "requests" / "a0.attreq").read_bytes())
    image = seal_image([(0x10000, b"x")], [MACHINE.keys.host.public_key()])
    with PlayedGuest(MACHINE.keys, image.header, model=model) as guest:
        assert len(guest.configuration.secret_store.stored) == 0
        if not attests:
            for ask in (lambda: perform_attestation(file, guest), guest.list_secrets, guest.lock_secrets):
                with pytest.raises(UltravisorRefusedError) as caught:
                    ask()
                assert caught.value.rc == 0x0002
            return
        assert len(perform_attestation(file, guest).measurement) == 64
        guest.list_secrets()


def test_an_image_that_may_be_dumped_does_not_start_on_a_z15() -> None:
    with pytest.raises(CallFailed, match="plaintext"):
        PlayedGuest(MACHINE.keys, HEADER, model=MachineModel.Z15)


def test_instances_differ() -> None:
    with PlayedGuest(MACHINE.keys, HEADER) as one, PlayedGuest(MACHINE.keys, HEADER) as other:
        assert one.configuration.uid != other.configuration.uid


def test_a_verified_answer_of_a_played_guest_is_a_response() -> None:
    with PlayedGuest(MACHINE.keys, HEADER) as guest:
        file = RequestFile.parse((FOLDER / "requests" / "a1.attreq").read_bytes())
        response = perform_attestation(file, guest, user_data=b"now")
        assert ResponseFile.parse(response.pack()).user_data == b"now"

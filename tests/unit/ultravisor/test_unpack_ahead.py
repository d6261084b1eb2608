"""Images that are unpacked before anyone asks: no answer may differ from that of an ultravisor that waited."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.waiting import PATIENCE
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.crypto.digests import DigestValues
from zseal.crypto.keyexchange import MachineKeys
from zseal.crypto.xts import XtsPages
from zseal.errors import InputError
from zseal.formats.ipib import IpibComponent
from zseal.formats.se_header import PlainFlags
from zseal.model.image import ModelImage, seal_image
from zseal.ultravisor.image import unpack_ahead as module
from zseal.ultravisor.image.acceptance import accept_header
from zseal.ultravisor.image.unpack_ahead import UnpackAhead
from zseal.ultravisor.image.unpacking import Unpacked, Unpacking
from zseal.ultravisor.settings import Settings

PIECE = 2 * MIB
KEYS, OTHER_KEYS = (MachineKeys(ec.generate_private_key(ec.SECP521R1()), None) for _ in range(2))
CONTENTS = [(MIB, secrets.token_bytes(5 * MIB)), (8 * MIB, b"command line"), (10 * MIB, secrets.token_bytes(PIECE))]
SETTINGS = Settings()


@pytest.fixture(scope="module", params=[0, int(PlainFlags.NO_COMPONENT_ENCRYPTION)], ids=["encrypted", "plain"])
def image(request: pytest.FixtureRequest) -> ModelImage:
    return seal_image(CONTENTS, [KEYS.host.public_key()], pcf=request.param)


def listed(image: ModelImage) -> list[IpibComponent]:
    return [
        IpibComponent(tweak_prefix=part.prefix, address=part.address, size=len(part.stored))
        for part in image.components
    ]


def reader(image: ModelImage) -> Callable[[int, int], bytes]:
    def read(address: int, size: int) -> bytes:
        for part in image.components:
            if part.address <= address < part.address + len(part.stored):
                return part.stored[address - part.address :][:size]
        return b""

    return read


def unpacked_ahead(
    image: ModelImage, *, keys: MachineKeys = KEYS, read: Callable[[int, int], bytes] | None = None
) -> UnpackAhead:
    """Return one that has come to its end."""
    found = UnpackAhead(image.header, listed(image), read or reader(image), keys=keys, settings=SETTINGS, piece=PIECE)
    found._thread.join(PATIENCE)
    assert not found._thread.is_alive()
    return found


def runs(image: ModelImage) -> Iterator[tuple[bytes, int, int, int]]:
    for part in image.components:
        for at in range(0, len(part.stored), PIECE):
            yield part.stored[at : at + PIECE], part.address + at, part.prefix, at


def cipher(image: ModelImage) -> XtsPages | None:
    return accept_header(image.header, KEYS).cipher()


def unpack(unpacking: Unpacking, calls: Iterator[tuple[bytes, int, int, int]]) -> tuple[list[bytes], DigestValues]:
    plain = []
    for stored, address, prefix, offset in calls:
        found, unpacking.digested = unpacking.unpack(memoryview(stored), address, prefix, offset)
        plain.append(stored if found is None else bytes(found))
    return plain, unpacking.digested.values()


def test_the_expected_image_is_not_worked_on_again(monkeypatch: pytest.MonkeyPatch, image: ModelImage) -> None:
    results = unpacked_ahead(image).take(image.header)
    assert [len(result.stored) for result in results] == [PIECE, PIECE, MIB, PAGE_SIZE, PIECE]
    wanted = unpack(Unpacking(cipher(image)), runs(image))
    unpacking = Unpacking(cipher(image), results)
    monkeypatch.setattr(XtsPages, "decrypt_run", None)
    monkeypatch.setattr("zseal.crypto.digests.ImageDigests.update_run", None)
    assert unpack(unpacking, runs(image)) == wanted
    assert wanted[1] == accept_header(image.header, KEYS).digests
    assert b"".join(wanted[0][:3]) == CONTENTS[0][1]


def _other(
    field: int, value: object
) -> Callable[[list[tuple[bytes, int, int, int]]], list[tuple[bytes, int, int, int]]]:
    def change(calls: list[tuple[bytes, int, int, int]]) -> list[tuple[bytes, int, int, int]]:
        call = list(calls[1])
        call[field] = value
        stored, address, prefix, offset = call
        assert isinstance(stored, bytes) and isinstance(address, int)
        assert isinstance(prefix, int) and isinstance(offset, int)
        return [calls[0], (stored, address, prefix, offset), *calls[2:]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        _other(0, secrets.token_bytes(PIECE)),
        _other(0, secrets.token_bytes(PAGE_SIZE)),
        _other(1, 64 * MIB),
        _other(2, 7),
        _other(3, PAGE_SIZE),
        lambda calls: calls[::-1],
        lambda calls: [calls[0], *calls],
        lambda calls: calls[1:],
        lambda calls: calls[:-1],
        lambda calls: [(calls[0][0][:PAGE_SIZE], *calls[0][1:]), *calls[1:]],
    ],
    ids=["content", "size", "address", "prefix", "offset", "order", "twice", "first", "last", "page"],
)
def test_what_comes_otherwise_is_taken_as_it_comes(
    image: ModelImage,
    change: Callable[[list[tuple[bytes, int, int, int]]], list[tuple[bytes, int, int, int]]],
) -> None:
    calls = change(list(runs(image)))
    results = unpacked_ahead(image).take(image.header)
    assert results
    wanted = unpack(Unpacking(cipher(image)), iter(calls))
    assert unpack(Unpacking(cipher(image), results), iter(calls)) == wanted
    assert wanted[1] != accept_header(image.header, KEYS).digests


def test_one_flipped_bit_in_storage_is_seen(image: ModelImage) -> None:
    calls = list(runs(image))
    stored = bytearray(calls[-1][0])
    stored[-1] ^= 1
    unpacking = Unpacking(cipher(image), unpacked_ahead(image).take(image.header))
    _, found = unpack(unpacking, iter([*calls[:-1], (bytes(stored), *calls[-1][1:])]))
    wanted = accept_header(image.header, KEYS).digests
    assert found.pld != wanted.pld
    assert (found.ald, found.tld, found.nep) == (wanted.ald, wanted.tld, wanted.nep)


def test_results_are_for_one_header_and_given_once(image: ModelImage) -> None:
    other = seal_image(CONTENTS, [KEYS.host.public_key()])
    assert not unpacked_ahead(image).take(other.header)
    found = unpacked_ahead(image)
    assert found.take(image.header)
    assert not found.take(image.header)


def _raise(address: int, size: int) -> bytes:
    raise InputError("the disk is gone") if address else OSError(5, "Input/output error")


@pytest.mark.parametrize(
    "read", [lambda *_: b"", lambda _, size: bytes(size - 1), _raise], ids=["end", "short", "error"]
)
def test_an_unreadable_image_is_not_unpacked_ahead(image: ModelImage, read: Callable[[int, int], bytes]) -> None:
    assert not unpacked_ahead(image, read=read).take(image.header)


def test_an_image_for_another_machine_is_not_unpacked_ahead(image: ModelImage) -> None:
    assert not unpacked_ahead(image, keys=OTHER_KEYS).take(image.header)


def test_a_large_image_is_unpacked_ahead_in_part(monkeypatch: pytest.MonkeyPatch, image: ModelImage) -> None:
    monkeypatch.setattr(module, "_LIMIT", 4 * MIB)
    results = unpacked_ahead(image).take(image.header)
    assert len(results) == 2
    assert unpack(Unpacking(cipher(image), results), runs(image)) == unpack(Unpacking(cipher(image)), runs(image))


def test_it_is_stopped_between_two_pieces(image: ModelImage) -> None:
    asked: list[int] = []
    found: list[UnpackAhead] = []

    def read(address: int, size: int) -> bytes:
        asked.append(address)
        while not found:
            pass
        found[0]._stopped.set()
        return reader(image)(address, size)

    found.append(UnpackAhead(image.header, listed(image), read, keys=KEYS, settings=SETTINGS, piece=PIECE))
    assert len(found[0].take(image.header)) <= 1
    assert len(asked) <= 1


def test_nothing_of_the_content_is_in_a_repr(image: ModelImage) -> None:
    (first, *_) = unpacked_ahead(image).take(image.header)
    assert isinstance(first, Unpacked)
    assert len(repr(first)) < 1000

"""Page encryption against OpenSSL's own XTS, and the image digests against their definition."""

from __future__ import annotations

import hashlib
import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from zseal.crypto.digests import ImageDigests
from zseal.crypto.xts import XtsPages, page_tweaks
from zseal.errors import InputError
from zseal.secret import Secret

KEY = Secret(bytes(range(64)))
PREFIX = 0x0028_1122_3344_5566


def reference(page: bytes, tweak: bytes, key: Secret = KEY) -> bytes:
    return Cipher(algorithms.AES(key.reveal()), modes.XTS(tweak)).encryptor().update(page)


def pages(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(4096 * count)


@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 64, 65, 100, 511, 512, 513, 1050])
def test_run_equals_openssl_page_by_page(count: int) -> None:
    data, offset = pages(count), 0x7000
    expected = b"".join(
        reference(data[at : at + 4096], PREFIX.to_bytes(8, "big") + (offset + at).to_bytes(8, "big"))
        for at in range(0, len(data), 4096)
    )
    xts = XtsPages(KEY)
    assert xts.encrypt_run(data, PREFIX, offset) == expected
    assert xts.decrypt_run(memoryview(expected), PREFIX, offset) == data


@settings(max_examples=20, deadline=None)
@given(key=st.binary(min_size=64, max_size=64), tweaks=st.lists(st.binary(min_size=16, max_size=16), max_size=40))
def test_any_key_and_tweaks_equal_openssl(key: bytes, tweaks: list[bytes]) -> None:
    if key[:32] == key[32:]:
        return
    data = pages(len(tweaks))
    xts = XtsPages(Secret(key))
    expected = [reference(data[4096 * i :][:4096], tweak, Secret(key)) for i, tweak in enumerate(tweaks)]
    assert xts.encrypt_pages(data, tweaks) == b"".join(expected)
    assert xts.decrypt_pages(b"".join(expected), b"".join(tweaks)) == data


@pytest.mark.parametrize("count", [3, 100])
def test_output_goes_into_a_given_buffer(count: int) -> None:
    data, out = pages(count), bytearray(4096 * count)
    xts = XtsPages(KEY)
    assert xts.encrypt_run(data, PREFIX, 0, out=out) is out
    assert out == xts.encrypt_run(data, PREFIX, 0)
    with pytest.raises(ValueError, match="buffer"):
        xts.encrypt_run(data, PREFIX, 0, out=bytearray(4096))
    target = bytearray(len(data))
    xts.decrypt_into(out, page_tweaks(PREFIX, 0, len(data) // 4096), memoryview(target))
    assert target == data


def test_tweaks_are_prefix_and_byte_offset() -> None:
    assert page_tweaks(PREFIX, 4096, 2).hex() == "0028112233445566000000000000100000281122334455660000000000002000"
    assert page_tweaks((1 << 64) - 1, (1 << 64) - 4096, 1).hex() == "f" * 29 + "000"


def test_equal_halves_and_wrong_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="halves"):
        XtsPages(Secret(bytes(64)))
    with pytest.raises(InputError, match="64 bytes"):
        XtsPages(Secret(bytes(32)))
    with pytest.raises(ValueError, match="not pages"):
        XtsPages(KEY).encrypt_pages(bytes(4095), [bytes(16)])
    with pytest.raises(ValueError, match="not pages"):
        XtsPages(KEY).encrypt_pages(bytes(8192), [bytes(16)])


def test_digests_follow_their_definition_however_the_pages_are_grouped() -> None:
    data = pages(5)
    whole, split = ImageDigests(), ImageDigests()
    whole.update_run(data, 0x15000, PREFIX, 0)
    for at in range(0, len(data), 4096):
        split.update_run(data[at : at + 4096], 0x15000 + at, PREFIX, at)
    values = whole.values()
    assert values == split.values()
    assert values.nep == 5
    assert values.pld == hashlib.sha512(data).digest()
    assert values.ald == hashlib.sha512(b"".join((0x15000 + 4096 * i).to_bytes(8, "big") for i in range(5))).digest()
    assert values.tld == hashlib.sha512(page_tweaks(PREFIX, 0, 5)).digest()
    with pytest.raises(ValueError, match="whole pages"):
        whole.update_run(b"x", 0, 0, 0)

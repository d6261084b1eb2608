"""User data: unsigned or signed, by the reference's tools and ours, and never accepted once changed."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.paths import VECTORS
from zseal.attestation import HeaderTags
from zseal.errors import FormatError, InputError, VerificationError
from zseal.secrets import NewSecret, UserData, create_add_secret_request, verified_user_data
from zseal.secrets.user_data import SigningKey

FOLDER = VECTORS / "attestation" / "more"
HOST = ec.generate_private_key(ec.SECP521R1()).public_key()
KEYS: dict[str, SigningKey] = {
    "ec": ec.generate_private_key(ec.SECP521R1()),
    "rsa2048": rsa.generate_private_key(65537, 2048),
    "rsa3072": rsa.generate_private_key(65537, 3072),
}
TAGS = HeaderTags(pld=bytes(64), ald=bytes(64), tld=bytes(64), seht=bytes(16))
CAPACITY = {"ec": 256, "rsa2048": 256, "rsa3072": 128}


def request(data: UserData) -> bytes:
    return create_add_secret_request([HOST], tags=TAGS, secret=NewSecret.meta(), user_data=data).pack()


def test_the_references_signature_is_accepted() -> None:
    key = load_pem_private_key((FOLDER / "keys" / "sign-ec.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    found = verified_user_data((FOLDER / "requests" / "meta-ec.asr").read_bytes(), key.public_key())
    assert found.rstrip(b"\0") == (FOLDER / "keys" / "ud.bin").read_bytes() or len(found) == 256
    unsigned = verified_user_data((FOLDER / "requests" / "meta-ud.asr").read_bytes(), None)
    assert len(unsigned) == 512
    assert unsigned.startswith((FOLDER / "keys" / "ud.bin").read_bytes()) or unsigned.rstrip(b"\0")


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("full", [False, True])
def test_signed_user_data_come_back(name: str, full: bool) -> None:
    payload = b"\x07" * CAPACITY[name] if full else b""
    data = request(UserData(payload, KEYS[name]))
    assert verified_user_data(data, KEYS[name].public_key()) == payload.ljust(CAPACITY[name], b"\0")


@pytest.mark.parametrize("name", KEYS)
def test_no_change_goes_unnoticed(name: str) -> None:
    good = request(UserData(b"who sent this", KEYS[name]))
    for place in (0x31, 0x40, 0x108, 0x218, 0x318, 0x420, 0x4C0, len(good) - 17):
        data = bytearray(good)
        data[place] ^= 1
        with pytest.raises((VerificationError, FormatError)):
            verified_user_data(bytes(data), KEYS[name].public_key())


def test_keys_that_do_not_fit() -> None:
    signed, unsigned = request(UserData(b"x", KEYS["ec"])), request(UserData(b"x"))
    with pytest.raises(InputError, match=r"signed with an EC key on secp521r1 .*; give the public key"):
        verified_user_data(signed, None)
    with pytest.raises(InputError, match="not with this one"):
        verified_user_data(signed, KEYS["rsa2048"].public_key())
    with pytest.raises(InputError, match="not signed; verify without a key"):
        verified_user_data(unsigned, KEYS["ec"].public_key())
    other = ec.generate_private_key(ec.SECP521R1()).public_key()
    with pytest.raises(VerificationError, match="signature of the user data does not match"):
        verified_user_data(signed, other)
    for key in (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 4096)):
        with pytest.raises(InputError, match="cannot sign user data"):
            UserData(b"x", key)


def test_no_user_data_need_no_key() -> None:
    assert verified_user_data(request(UserData()), None) == b""


def test_too_much_is_refused() -> None:
    with pytest.raises(InputError, match="at most 512 bytes, not 513"):
        UserData(bytes(512) + b"x")
    with pytest.raises(InputError, match="at most 128 bytes, not 129"):
        UserData(bytes(129), KEYS["rsa3072"])


def test_an_unknown_type_is_refused() -> None:
    data = bytearray(request(UserData(b"x")))
    data[7] = 9
    with pytest.raises(FormatError, match="unknown type 9"):
        verified_user_data(bytes(data), None)

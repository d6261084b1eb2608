"""Key exchange and header sealing against values of the reference tools."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests import paths
from zseal.crypto import keyexchange
from zseal.crypto.header import open_header, seal_header
from zseal.crypto.keyexchange import MachineKeys
from zseal.errors import InputError, VerificationError
from zseal.formats.se_header import parse_header
from zseal.secret import Secret

VECTORS = paths.VECTORS / "se-image"
HEADER = (VECTORS / "se-hdr-genprotimg-2.35.bin").read_bytes()
FACTS = json.loads((VECTORS / "se-hdr-genprotimg-2.35.json").read_text())
KAT1 = json.loads((VECTORS / "se-kat1.json").read_text())


def private_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


HOST = private_key((VECTORS / "se-hostkey.pem").read_bytes())


def test_slot_of_genprotimg_opens_step_by_step() -> None:
    header = parse_header(HEADER)
    customer = keyexchange.public_key(header.fixed.customer_key)
    phkh = keyexchange.key_hash(HOST.public_key())
    assert phkh.hex() == FACTS["phkh"]
    shared = keyexchange.shared_secret(HOST, customer)
    assert shared.reveal().hex() == FACTS["ecdh"]
    kek = keyexchange.key_encryption_key(shared)
    assert kek.reveal().hex() == FACTS["kek"]
    slot = keyexchange.find_slot(header.slots, phkh)
    assert slot is not None
    header_key = keyexchange.unwrap(slot, kek)
    assert header_key.reveal().hex() == FACTS["hdrkey"]
    assert open_header(header, header_key).pack().hex() == FACTS["enc_plain"]


def test_header_of_genprotimg_seals_to_the_same_bytes() -> None:
    header = parse_header(HEADER)
    header_key = Secret(bytes.fromhex(FACTS["hdrkey"]))
    area = open_header(header, header_key)
    assert seal_header(header.fixed, header.slots, area, header_key).pack() == HEADER


def test_slots_of_the_first_known_answer() -> None:
    inputs, derived = KAT1["inputs"], KAT1["derived"]
    customer = private_key(inputs["customer_private_key_pem"].encode())
    header = parse_header(bytes.fromhex(derived["se_hdr_hex"]))
    for number, slot in enumerate(header.slots, 1):
        host = private_key(inputs[f"host_key_{number}_pem"].encode())
        made = keyexchange.make_slot(customer, host.public_key(), Secret(bytes.fromhex(inputs["hdr_key_hex"])))
        assert made == slot
        assert made.phkh.hex() == derived[f"phkh_{number}_hex"]
        assert keyexchange.open_slot(host, customer.public_key(), slot).reveal().hex() == inputs["hdr_key_hex"]


@pytest.mark.parametrize("offset", range(len(HEADER)))
def test_every_flipped_byte_makes_the_header_not_open(offset: int) -> None:
    changed = bytearray(HEADER)
    changed[offset] ^= 0x40
    with pytest.raises((InputError, VerificationError)):
        header = parse_header(bytes(changed))
        customer = keyexchange.public_key(header.fixed.customer_key)
        slot = keyexchange.find_slot(header.slots, keyexchange.key_hash(HOST.public_key()))
        if slot is None:
            raise InputError("no slot")
        open_header(header, keyexchange.open_slot(HOST, customer, slot))


def test_point_off_the_curve_is_refused() -> None:
    coordinates = bytearray(keyexchange.public_coordinates(HOST.public_key()))
    coordinates[-1] ^= 1
    with pytest.raises(InputError, match="not a point"):
        keyexchange.public_key(bytes(coordinates))
    with pytest.raises(InputError, match="not a point"):
        keyexchange.public_key(b"\xff" * 160)
    with pytest.raises(InputError, match="not a point"):
        keyexchange.public_key(bytes(160))
    with pytest.raises(InputError, match="160 bytes"):
        keyexchange.public_key(bytes(159))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_other_curves_are_refused(curve: ec.EllipticCurve) -> None:
    other = ec.generate_private_key(curve)
    with pytest.raises(InputError, match=curve.name):
        keyexchange.public_coordinates(other.public_key())
    with pytest.raises(InputError, match=curve.name):
        MachineKeys(other)
    with pytest.raises(InputError, match=curve.name):
        keyexchange.shared_secret(HOST, other.public_key())


def test_machine_keys_show_no_secret() -> None:
    secret = HOST.private_numbers().private_value
    shown = repr(MachineKeys(HOST, backup=HOST))
    assert str(secret) not in shown and f"{secret:x}"[:8] not in shown

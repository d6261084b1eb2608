"""Sealing and opening attestation and add-secret requests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto import gcm
from zseal.crypto.keyexchange import find_slot, key_hash, make_slot, open_slot, public_key
from zseal.errors import InputError, VerificationError
from zseal.formats.key_slot import KeySlot
from zseal.formats.request import MAX_KEY_SLOTS, PROTECTION_KEY_SIZE, Request
from zseal.secret import Secret


def make_slots(
    customer: ec.EllipticCurvePrivateKey, hosts: Sequence[ec.EllipticCurvePublicKey], protection_key: Secret
) -> tuple[KeySlot, ...]:
    """Return a slot for each host key, in their order; raises InputError for none, or for more than 255."""
    if not hosts:
        raise InputError("a request needs at least one host key")
    if len(hosts) > MAX_KEY_SLOTS:
        raise InputError(f"a request has room for {MAX_KEY_SLOTS} host keys, not for {len(hosts)}")
    return tuple(make_slot(customer, host, protection_key) for host in hosts)


def seal_request(authenticated: bytes, iv: bytes, plaintext: Secret, protection_key: Secret) -> Request:
    """Return the request with ``plaintext`` encrypted; ``authenticated`` is everything in front of it."""
    encrypted, tag = gcm.encrypt(protection_key, iv, plaintext.reveal(), authenticated)
    return Request(authenticated, encrypted, tag)


def decrypt_request(request: Request, protection_key: Secret) -> Secret:
    """Return what is encrypted in ``request``; raises VerificationError for a wrong key or any changed byte."""
    if len(protection_key) != PROTECTION_KEY_SIZE:
        raise InputError(f"a request protection key has {PROTECTION_KEY_SIZE} bytes, not {len(protection_key)}")
    header = request.header
    return gcm.decrypt(protection_key, header.iv, request.encrypted, request.tag, request.authenticated)


@dataclasses.dataclass(frozen=True)
class OpenedRequest:
    """What a machine finds in a request: the decrypted part, and the hash of the host key that opened it."""

    plaintext: Secret
    phkh: bytes


def open_request(
    request: Request, slots: Sequence[KeySlot], customer_key: bytes, keys: Sequence[ec.EllipticCurvePrivateKey]
) -> OpenedRequest:
    """Open ``request`` with the first of the host ``keys`` that has a slot, as the ultravisor does.

    ``customer_key`` are its 160 bytes of coordinates. Raises VerificationError if no slot is for any of the keys, the
    customer key is not a point of the curve, or a tag does not match.
    """
    for key in keys:
        phkh = key_hash(key.public_key())
        slot = find_slot(slots, phkh)
        if slot is None:
            continue
        try:
            customer = public_key(customer_key)
        except InputError as error:
            raise VerificationError(error.message) from error
        return OpenedRequest(decrypt_request(request, open_slot(key, customer, slot)), phkh)
    raise VerificationError("the request has no key slot for this machine")

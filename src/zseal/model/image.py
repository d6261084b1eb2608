"""Sealed images for model guests: a header and any components, without a kernel or bootloaders."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.arch.psw import MASK_64BIT
from zseal.arch.storage import PAGE_SIZE
from zseal.crypto.digests import ImageDigests
from zseal.crypto.header import seal_header
from zseal.crypto.keyexchange import CURVE, make_slot, public_coordinates
from zseal.crypto.xts import XtsPages
from zseal.formats.se_header import FixedPart, PlainFlags, SecretArea, SecretFlags
from zseal.secret import Secret

_TWEAK_STEP = 1 << 32


@dataclasses.dataclass(frozen=True)
class ModelComponent:
    """One component as stored: guest address, tweak prefix, encrypted (or plain) whole pages."""

    address: int
    prefix: int
    stored: bytes


@dataclasses.dataclass(frozen=True)
class ModelImage:
    """A sealed image: the bytes of its SE header, its components, and the secrets that its builder keeps."""

    header: bytes
    components: tuple[ModelComponent, ...]
    cck: Secret


def seal_image(
    contents: Sequence[tuple[int, bytes]],
    host_keys: Sequence[ec.EllipticCurvePublicKey],
    *,
    entry: int | None = None,
    pcf: int = 0,
    scf: int = 0,
    cck: Secret | None = None,
) -> ModelImage:
    """Seal components, given as (guest address, content), for machines with ``host_keys``.

    Contents are padded to pages; addresses are multiples of 4096, in ascending order. The guest starts at ``entry``, by
    default the last component's address. The flags go into the header unchecked.
    """
    image_key = Secret(secrets.token_bytes(64))
    header_key = Secret(secrets.token_bytes(32))
    cck = cck or Secret(secrets.token_bytes(32))
    cipher, digests = XtsPages(image_key), ImageDigests()
    components = []
    for number, (address, content) in enumerate(contents, 1):
        stored = content.ljust(-(-max(len(content), 1) // PAGE_SIZE) * PAGE_SIZE, b"\0")
        prefix = number * _TWEAK_STEP
        if not pcf & PlainFlags.NO_COMPONENT_ENCRYPTION:
            stored = bytes(cipher.encrypt_run(stored, prefix, 0))
        digests.update_run(stored, address, prefix, 0)
        components.append(ModelComponent(address, prefix, stored))
    values = digests.values()
    customer = ec.generate_private_key(CURVE())
    fixed = FixedPart(
        sehs=0,
        iv=secrets.token_bytes(12),
        res1=0,
        nks=0,
        sea=0,
        nep=values.nep,
        pcf=pcf,
        customer_key=public_coordinates(customer.public_key()),
        pld=values.pld,
        ald=values.ald,
        tld=values.tld,
    )
    area = SecretArea(
        cck=cck,
        image_key=image_key,
        psw_mask=MASK_64BIT,
        psw_address=components[-1].address if entry is None else entry,
        scf=SecretFlags(scf),
    )
    slots = tuple(make_slot(customer, key, header_key) for key in host_keys)
    return ModelImage(seal_header(fixed, slots, area, header_key).pack(), tuple(components), cck)

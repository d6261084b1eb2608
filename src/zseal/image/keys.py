"""The random values of one image: keys, IV and tweaks."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto.keyexchange import CURVE
from zseal.errors import InputError
from zseal.files import read_limited
from zseal.formats.image_layout import COMPONENT_NUMBERS, ComponentKind
from zseal.formats.se_header import COMMUNICATION_KEY_SIZE, HEADER_KEY_SIZE, IMAGE_KEY_SIZE, IV_SIZE
from zseal.secret import Secret

TWEAK_RANDOM_SIZE = 6
# far more than any key has: the size shows a wrong file, which need not be read whole
MAX_KEY_FILE = 1 << 20


def load_key(path: Path, size: int, what: str) -> Secret:
    """Return the raw key in the file ``path``: exactly ``size`` bytes; ``what`` names it in the InputError."""
    data = read_limited(path, MAX_KEY_FILE, what)
    if len(data) != size:
        raise InputError(f"the {what} has {len(data)} bytes instead of {size}", where=str(path))
    return Secret(data)


def _checked(key: Secret | None, size: int, what: str) -> Secret:
    if key is None:
        return Secret(secrets.token_bytes(size))
    if len(key) != size:
        raise InputError(f"the {what} has {len(key)} bytes instead of {size}")
    return key


@dataclasses.dataclass(frozen=True)
class ImageKeys:
    """Everything random in an image: with the same values and inputs, the same image results."""

    header_key: Secret
    """Header protection key, 32 bytes: every key slot contains it."""
    image_key: Secret
    """AES-256-XTS key of the components, 64 bytes."""
    cck: Secret
    """Customer communication key, 32 bytes: its owner can add secrets, decrypt dumps and attest."""
    customer_key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)
    """Ephemeral P-521 key for the key exchange with the host keys; only its public half is kept, in the header."""
    iv: bytes
    """AES-GCM initialization vector of the header, 12 bytes."""
    tweaks: Mapping[ComponentKind, bytes]
    """The 6 random bytes in each component's tweak prefix."""

    @classmethod
    def generate(
        cls, *, header_key: Secret | None = None, image_key: Secret | None = None, cck: Secret | None = None
    ) -> ImageKeys:
        """Return new random values together with the keys given; raises InputError if one has a wrong size."""
        image_key = _checked(image_key, IMAGE_KEY_SIZE, "image key")
        if image_key.reveal()[: IMAGE_KEY_SIZE // 2] == image_key.reveal()[IMAGE_KEY_SIZE // 2 :]:
            raise InputError("the two halves of the image key are equal", hint="AES-XTS needs two different keys")
        return cls(
            header_key=_checked(header_key, HEADER_KEY_SIZE, "header key"),
            image_key=image_key,
            cck=_checked(cck, COMMUNICATION_KEY_SIZE, "customer communication key"),
            customer_key=ec.generate_private_key(CURVE()),
            iv=secrets.token_bytes(IV_SIZE),
            tweaks={kind: secrets.token_bytes(TWEAK_RANDOM_SIZE) for kind in ComponentKind},
        )

    def tweak_prefix(self, kind: ComponentKind) -> int:
        """Return the u64 tweak prefix of a component: its number in pvimg's order, then the random bytes."""
        return COMPONENT_NUMBERS[kind] << 48 | int.from_bytes(self.tweaks[kind], "big")

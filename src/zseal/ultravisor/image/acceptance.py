"""The ultravisor's checks before a guest may start: first its SE header, then the digests of the unpacked image.

Both steps need no machine state, so that an image can be judged without starting it. A failure is an
:class:`UvcRefusal` with the rc and rrc that SET_SEC_CONF_PARAMS or VERIFY_IMG answer.
"""

from __future__ import annotations

import dataclasses
import hmac

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.arch.psw import Psw
from zseal.crypto.digests import DigestValues
from zseal.crypto.header import open_header
from zseal.crypto.keyexchange import MachineKeys, find_slot, key_hash, open_slot, public_key
from zseal.crypto.xts import XtsPages
from zseal.errors import FormatError, InputError, VerificationError
from zseal.formats.key_slot import KeySlot
from zseal.formats.se_header import HeaderError, HeaderFault, PlainFlags, SecretFlags, SeHeader, parse_header
from zseal.formats.uv_codes import SetParameters, VerifyImage
from zseal.secret import Secret
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.settings import Settings

_FAULTS = {
    HeaderFault.TRUNCATED: SetParameters.HEADER_SIZE,
    HeaderFault.MAGIC: SetParameters.MAGIC,
    HeaderFault.VERSION: SetParameters.VERSION,
    HeaderFault.SIZE: SetParameters.HEADER_SIZE,
    HeaderFault.AREA_SIZE: SetParameters.ENCRYPTED_SIZE,
    HeaderFault.NO_SLOTS: SetParameters.NO_KEY_SLOTS,
}


@dataclasses.dataclass(frozen=True)
class AcceptedHeader:
    """The contents of an opened SE header that the ultravisor keeps."""

    header: SeHeader
    cck: Secret
    """Customer communication key, 32 bytes."""
    image_key: Secret
    """AES-256-XTS key of the components, 64 bytes."""
    psw: Psw
    """The PSW with which the guest starts."""
    pcf: PlainFlags
    scf: SecretFlags
    host_key_hash: bytes
    """The hash (32 bytes) of the host key whose slot opened the header."""

    @property
    def tag(self) -> bytes:
        """The header's 16-byte authentication tag, which names the image in attestation and secrets."""
        return self.header.tag

    @property
    def digests(self) -> DigestValues:
        """The digests and page count that the unpacked image must have."""
        fixed = self.header.fixed
        return DigestValues(pld=fixed.pld, ald=fixed.ald, tld=fixed.tld, nep=fixed.nep)

    def cipher(self) -> XtsPages | None:
        """Return the cipher that decrypts the components; None if they are not encrypted. Raises InputError for a bad
        key.
        """
        return None if PlainFlags.NO_COMPONENT_ENCRYPTION in self.pcf else XtsPages(self.image_key)

    def wipe(self) -> None:
        """Overwrite the keys."""
        self.cck.wipe()
        self.image_key.wipe()


def _slot(header: SeHeader, keys: MachineKeys) -> tuple[ec.EllipticCurvePrivateKey, KeySlot]:
    slot = find_slot(header.slots, key_hash(keys.host.public_key()))
    if slot is not None:
        return keys.host, slot
    if keys.backup is None:
        raise UvcRefusal(SetParameters.HOST_KEY)
    slot = find_slot(header.slots, key_hash(keys.backup.public_key()))
    if PlainFlags.BACKUP_KEYS not in header.pcf:
        detail = "its backup host key does, but the image does not allow backup keys" if slot else None
        raise UvcRefusal(SetParameters.HOST_KEY, detail=detail)
    if slot is None:
        raise UvcRefusal(SetParameters.BACKUP_KEY)
    return keys.backup, slot


def accept_header(data: bytes, keys: MachineKeys, *, settings: Settings | None = None) -> AcceptedHeader:
    """Open the SE header ``data`` with the host keys of a machine; raises UvcRefusal.

    The checks come in this order: magic, version, sizes, number of key slots, plaintext flags, a slot for this
    machine, the customer's public key, the slot's tag, the header's tag, the decrypted area, secret flags.
    """
    settings = settings or Settings()
    try:
        header = parse_header(data)
    except HeaderError as error:
        raise UvcRefusal(_FAULTS[error.fault], detail=error.message) from error
    if header.version not in settings.header_versions:
        raise UvcRefusal(SetParameters.VERSION, detail=f"version {header.version:#x}")
    if unknown := header.pcf & ~settings.plaintext_flags:
        raise UvcRefusal(SetParameters.PLAINTEXT_FLAG, detail=f"flags {unknown:#018x}")
    private, slot = _slot(header, keys)
    try:
        customer = public_key(header.fixed.customer_key)
    except InputError as error:
        raise UvcRefusal(SetParameters.CUSTOMER_KEY) from error
    try:
        header_key = open_slot(private, customer, slot)
    except VerificationError as error:
        raise UvcRefusal(SetParameters.KEY_SLOT) from error
    try:
        area = open_header(header, header_key)
    except VerificationError as error:
        raise UvcRefusal(SetParameters.AUTHENTICATION) from error
    except FormatError as error:
        raise UvcRefusal(SetParameters.RESERVED) from error
    finally:
        header_key.wipe()
    accepted = AcceptedHeader(
        header=header,
        cck=area.cck,
        image_key=area.image_key,
        psw=Psw(area.psw_mask, area.psw_address),
        pcf=header.pcf,
        scf=area.scf,
        host_key_hash=slot.phkh,
    )
    if unknown_secret := area.scf & ~settings.secret_flags:
        accepted.wipe()
        raise UvcRefusal(SetParameters.SECRET_FLAG, detail=f"flags {unknown_secret:#018x}")
    return accepted


def check_digests(accepted: AcceptedHeader, found: DigestValues) -> None:
    """Compare the unpacked image with the header: page count, addresses, tweaks, pages; raises UvcRefusal."""
    wanted = accepted.digests
    if found.nep != wanted.nep:
        raise UvcRefusal(VerifyImage.COUNT, detail=f"{found.nep} pages were unpacked, {wanted.nep} belong to the image")
    if not hmac.compare_digest(found.ald, wanted.ald):
        raise UvcRefusal(VerifyImage.ADDRESSES)
    if not hmac.compare_digest(found.tld, wanted.tld):
        raise UvcRefusal(VerifyImage.TWEAKS)
    if not hmac.compare_digest(found.pld, wanted.pld):
        raise UvcRefusal(VerifyImage.PAGES)

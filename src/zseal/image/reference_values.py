"""What a relying party's policy needs to know of an image: the values that Trustee compares with a guest's evidence."""

from __future__ import annotations

from zseal.errors import InputError
from zseal.formats.se_header import SeHeader
from zseal.jsonvalue import Json


def reference_values(header: SeHeader, key_hash: bytes, source: str) -> dict[str, Json]:
    """Return the reference values of the image with ``header`` on the machine with a host key, named as in Trustee.

    ``key_hash`` is the 32-byte hash of the key, ``source`` its document, for messages.

    ``se.tag`` names the image: it is the tag of its header. Both hashes are that of the machine's host key: the guest
    reports with which key its image was opened, and with which the attestation request. Values are in hexadecimal, the
    version of the header is a number. Raises InputError if the image is not for that machine.
    """
    if all(slot.phkh != key_hash for slot in header.slots):
        raise InputError("the image has no key slot for this host key, so it cannot run on that machine", where=source)
    return {
        "se.attestation_phkh": key_hash.hex(),
        "se.image_phkh": key_hash.hex(),
        "se.tag": header.tag.hex(),
        "se.version": header.version,
    }

"""PEM: the base64 blocks in a text file, in one pass."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterator

from zseal.errors import FormatError

CERTIFICATE_LABELS = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
CRL_LABELS = frozenset({"X509 CRL"})

_BEGIN = b"-----BEGIN "
_END = b"-----END "
_DASHES = b"-----"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def pem_blocks(data: bytes, labels: Collection[str], where: str) -> Iterator[bytes]:
    """Yield the content of each PEM block in ``data`` whose label is one of ``labels``; skip other text.

    Raises FormatError for such a block that lacks its end line or contains anything but base64.
    """
    label: str | None = None
    body: list[bytes] = []
    for raw in data.removeprefix(_BYTE_ORDER_MARK).splitlines():
        line = raw.strip()
        if label is None:
            if line.startswith(_BEGIN) and line.endswith(_DASHES) and len(line) > len(_BEGIN) + len(_DASHES):
                found = line[len(_BEGIN) : -len(_DASHES)].decode("latin-1")
                # an encapsulated block of another kind is skipped line by line
                label = found if found in labels else None
                body = []
        elif line.startswith(_DASHES):
            if line != _END + label.encode() + _DASHES:
                raise FormatError(f"damaged PEM: a {label} block does not end where it should", where=where)
            try:
                yield base64.b64decode(b"".join(body), validate=True)
            except binascii.Error as error:
                raise FormatError(f"damaged PEM: a {label} block is not base64", where=where) from error
            label = None
        else:
            body.append(line)
    if label is not None:
        raise FormatError(f"damaged PEM: a {label} block has no end line", where=where)

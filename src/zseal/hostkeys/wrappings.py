"""What people hand in as a certificate or CRL and is not one, or is one in another shape; says how to get at it."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

_MARK = b"-----BEGIN "
_PKCS7 = bytes.fromhex("06092a864886f70d010702")  # the object identifier of signed data, which holds a chain
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\s]+")
_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(frozen=True, kw_only=True)
class Wrapping:
    """A shape: what it is, with an article, and what to do about it."""

    what: str
    hint: str


UTF16 = Wrapping(what="UTF-16 text, as PowerShell's > writes it", hint="save it as ASCII or UTF-8")
ONE_LINE = Wrapping(what="a PEM block without its line breaks", hint="quote the variable that it was printed from")
BASE64 = Wrapping(what="base64 of a PEM file", hint="decode it first: base64 -d")
WEB_PAGE = Wrapping(what="a web page", hint="download the file itself, which may take a login")
PKCS7 = Wrapping(what="a PKCS#7 chain", hint="convert it to PEM: openssl pkcs7 -print_certs")
PRIVATE_KEY = Wrapping(what="a private key", hint="keep it secret, and give the certificate")


def wrapping_of(data: bytes) -> Wrapping | None:
    """Return the shape of a file without a certificate or CRL that can be read; None if it is not known."""
    if (encoding := _UTF16.get(data[:2])) or data[1:20:2].count(0) > 8:
        text = data.decode(encoding or "utf-16-le", "replace")
        return UTF16 if _MARK.decode() in text or encoding else None
    if data.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return WEB_PAGE
    if b"-----BEGIN PKCS7-----" in data or (data[:1] == b"\x30" and _PKCS7 in data[:32]):
        return PKCS7
    if re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----", data):
        return PRIVATE_KEY
    if re.search(rb"-----BEGIN [A-Z0-9 ]+-----[ \t]*[A-Za-z0-9+/]", data):
        return ONE_LINE
    return BASE64 if _MARK in _decoded(data) else None


def _decoded(data: bytes) -> bytes:
    """Return what the beginning of ``data`` is base64 of; nothing if it is not base64."""
    start = b"".join(data[:4096].split())
    if not _BASE64.fullmatch(start):
        return b""
    try:
        return base64.b64decode(start[: len(start) // 4 * 4])
    except binascii.Error:
        return b""

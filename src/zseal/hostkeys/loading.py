"""Reads certificates and CRLs from files and downloads: PEM with any number of them, or DER with one."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from zseal.errors import FormatError, InputError
from zseal.files import named_path, read_limited
from zseal.hostkeys.certificates import Certificate, Crl, parse_certificate, parse_crl
from zseal.hostkeys.pem import CERTIFICATE_LABELS, CRL_LABELS, pem_blocks
from zseal.hostkeys.wrappings import wrapping_of

# CRLs of large public CAs have a few MiB
MAX_FILE = 16 << 20
# no chain and no trust store has more; without a limit, a small file could keep a verification busy for minutes
MAX_OBJECTS = 1000

# what certificates and CRLs are called in a directory of them
_SUFFIXES = (".crt", ".cer", ".pem", ".der", ".crl")

Source = str | os.PathLike[str] | bytes
"""A file, or its content."""

_Parsed = TypeVar("_Parsed")

_MAX_LENGTH_BYTES = 4  # of a DER length; a longer one is nonsense
_PEM_MARK = b"-----BEGIN "


@dataclass(frozen=True)
class Objects:
    """The certificates and CRLs found in one or several places."""

    certificates: tuple[Certificate, ...] = ()
    crls: tuple[Crl, ...] = ()

    @property
    def all(self) -> tuple[Certificate | Crl, ...]:
        """The certificates and then the CRLs."""
        return (*self.certificates, *self.crls)

    def __add__(self, other: Objects) -> Objects:
        return Objects(self.certificates + other.certificates, self.crls + other.crls)


def parse_objects(data: bytes, source: str) -> Objects:
    """Return all certificates and CRLs in ``data``, if any; raises FormatError if one is damaged."""
    if data[:1] == b"\x30":
        try:
            return _parse_der(data, source)
        except FormatError:
            if _PEM_MARK not in data:
                raise
    return Objects(
        tuple(_parse_pem(data, CERTIFICATE_LABELS, parse_certificate, source)),
        tuple(_parse_pem(data, CRL_LABELS, parse_crl, source)),
    )


def _parse_pem(
    data: bytes, labels: Collection[str], parse: Callable[[bytes, str], _Parsed], source: str
) -> Iterable[_Parsed]:
    for count, der in enumerate(pem_blocks(data, labels, source)):
        if count == MAX_OBJECTS:
            raise FormatError(f"more than {MAX_OBJECTS} certificates or CRLs", where=source)
        yield parse(der, source)


def _parse_der(data: bytes, source: str) -> Objects:
    data = _der_value(data, source)
    try:
        return Objects(certificates=(parse_certificate(data, source),))
    except FormatError as as_certificate:
        try:
            return Objects(crls=(parse_crl(data, source),))
        except FormatError:
            if wrapping := wrapping_of(data):
                raise FormatError(f"it is {wrapping.what}", where=source, hint=wrapping.hint) from None
            raise as_certificate from None


def _der_value(data: bytes, source: str) -> bytes:
    """Return the DER value at the beginning of ``data``; only white space may follow it, as OpenSSL allows.

    Raises FormatError if it is cut off.
    """
    count = max(0, data[1] - 0x80) if len(data) > 1 else 0
    end = 2 + count + (int.from_bytes(data[2 : 2 + count]) if count else data[1] if len(data) > 1 else 0)
    if len(data) < end and count <= _MAX_LENGTH_BYTES:
        raise FormatError(f"damaged DER: cut off after {len(data)} of {end} bytes", where=source)
    return data[:end] if not data[end:].strip() else data


def not_found(message: str, data: bytes, name: str, hint: str) -> InputError:
    """Return the error that a file lacks the expected content; it says what the file is instead, if that is known."""
    if wrapping := wrapping_of(data):
        return InputError(f"{message}: it is {wrapping.what}", where=name, hint=wrapping.hint)
    return InputError(message, where=name, hint=hint)


def read_source(source: Source, what: str) -> tuple[bytes, str]:
    """Return the content of ``source``, which is ``what``, and its name for messages; raises InputError."""
    if isinstance(source, bytes):
        return source, what
    path = named_path(source)
    return read_limited(path, MAX_FILE, what), str(path)


def is_directory(source: Source) -> bool:
    """Return whether ``source`` is a directory, of which every file with the name of a certificate or CRL counts."""
    return not isinstance(source, bytes) and named_path(source).is_dir()


def files_of(source: Source) -> tuple[Source, ...]:
    """Return the files of a directory that have the name of a certificate or CRL, in the order of their names.

    Any other ``source`` is returned alone. Raises InputError if the directory cannot be read, or has no such file.
    """
    if isinstance(source, bytes) or not is_directory(source):
        return (source,)
    directory = Path(source)
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    except OSError as error:
        raise InputError(f"cannot read the directory: {error.strerror or error}", where=str(directory)) from error
    if not found:
        raise InputError(f"no file in it ends in {', '.join(_SUFFIXES)}", where=str(directory))
    if len(found) > MAX_OBJECTS:
        raise InputError(f"more than {MAX_OBJECTS} certificates or CRLs", where=str(directory))
    return tuple(found)


def load_objects(source: Source) -> Objects:
    """Return all certificates and CRLs in ``source``, PEM or DER, or in the files of a directory.

    Raises InputError if there are none.
    """
    if is_directory(source):
        return sum((load_objects(path) for path in files_of(source)), Objects())
    data, name = read_source(source, "certificate file")
    objects = parse_objects(data, name)
    if not objects.all:
        raise not_found("no certificate and no CRL in it", data, name, "give PEM or DER")
    return objects


def load_crls(source: Source) -> tuple[Crl, ...]:
    """Return the CRLs in ``source``, PEM or DER, or in the files of a directory.

    Raises InputError if there are none.
    """
    if is_directory(source):
        data, name = b"", str(source)
        crls = load_objects(source).crls
    else:
        data, name = read_source(source, "CRL")
        crls = parse_objects(data, name).crls
    if not crls:
        raise not_found("no CRL in it", data, name, "give a certificate revocation list in PEM or DER")
    return crls


def load_root(source: Source) -> Objects:
    """Return the root certificates in ``source``, with CRLs in the same file; raises InputError if there is no
    certificate.
    """
    data, name = read_source(source, "root CA certificate")
    objects = parse_objects(data, name)
    if not objects.certificates:
        raise not_found("no certificate in it", data, name, "give the root CA certificate in PEM or DER")
    return objects


def load_first_certificate(source: Source) -> Certificate:
    """Return the first certificate in ``source``, PEM or DER; raises InputError if there is none."""
    data, name = read_source(source, "certificate")
    certificates = parse_objects(data, name).certificates
    if not certificates:
        raise not_found("no certificate in it", data, name, "give one in PEM or DER")
    return certificates[0]

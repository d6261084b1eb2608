"""What is fuzzed of host keys: any bytes either are understood and judged or are refused with an error of ours.

The unit tests use the functions in every run, and so does the coverage-guided ``fuzz_hostkeys.py``.
"""

from __future__ import annotations

import functools
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from zseal.errors import ZsealError
from zseal.hostkeys.certificates import Certificate, Crl
from zseal.hostkeys.describe import describe, validity_of
from zseal.hostkeys.document import HostKeyDocument, load_host_key_document
from zseal.hostkeys.loading import Objects, parse_objects
from zseal.hostkeys.pem import CERTIFICATE_LABELS, CRL_LABELS, pem_blocks
from zseal.hostkeys.results import DocumentReport
from zseal.hostkeys.trust import TrustMaterial

ARCHIVE = Path(__file__).parents[1] / "vectors" / "hostkeys" / "pki.tar.xz"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@functools.cache
def published() -> dict[str, bytes]:
    """Return the files of the published verification cases by name."""
    with tarfile.open(ARCHIVE) as archive:
        streams = {Path(member.name).name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: stream.read() for name, stream in streams.items() if stream}


def _objects(*names: str) -> Objects:
    return sum((parse_objects(published()[name], name) for name in names), Objects())


@functools.cache
def trust() -> TrustMaterial:
    """Return a chain that holds."""
    return TrustMaterial(
        certificates=_objects("sk.crt", "inter.crt").certificates,
        crls=_objects("sk.crl", "inter.crl", "root.crl").crls,
        root_ca=_objects("root.crt").certificates,
    )


@functools.cache
def document() -> HostKeyDocument:
    """Return a document that passes with it."""
    return load_host_key_document(published()["hk.crt"])


def judged(material: TrustMaterial, judged_document: HostKeyDocument | None = None) -> DocumentReport:
    """Return how a document does with ``material``, which may never raise."""
    return material.check([judged_document or document()], offline=True, now=NOW).documents[0]


def use(item: Certificate | Crl) -> None:
    """Do everything that is done with a certificate or CRL; only refusals may come of it."""
    describe(item)
    validity_of(item, days=1, now=NOW)
    given = trust()
    if isinstance(item, Crl):
        for certificate in given.certificates:
            item.lists(certificate)
        judged(TrustMaterial(given.certificates, (*given.crls, item), given.root_ca))
        return
    judged(given, HostKeyDocument(item, "fuzzed"))
    signing_key, intermediate = given.certificates
    for certificates in ((item, intermediate), (signing_key, item), (signing_key, intermediate, item)):
        judged(TrustMaterial(certificates, given.crls, given.root_ca, choose_signing_key=True))
    judged(TrustMaterial(given.certificates, given.crls, (item,)))


def file(data: bytes) -> None:
    """Any file with certificates and CRLs: read, described, and used in every role."""
    try:
        objects = parse_objects(data, "fuzzed")
    except ZsealError as error:
        assert str(error).startswith("fuzzed: ")
        assert "\n" not in str(error)
        return
    for item in objects.all[:20]:
        use(item)


def blocks(data: bytes) -> None:
    """Any text that may be PEM."""
    try:
        found = list(pem_blocks(data, CERTIFICATE_LABELS | CRL_LABELS, "fuzzed"))
    except ZsealError:
        return
    assert sum(map(len, found)) <= len(data)


def patched(data: bytes) -> None:
    """A published certificate or CRL with some of its bytes replaced.

    The first byte of ``data`` says which; each record behind it is u16 offset, u8 count, the bytes.
    """
    if not data:
        return
    names = sorted(published())
    encoded = bytearray(published()[names[data[0] % len(names)]])
    at = 1
    while encoded and at + 3 <= len(data):
        place, count = int.from_bytes(data[at : at + 2], "big") % len(encoded), data[at + 2]
        chunk = data[at + 3 : at + 3 + count]
        encoded[place : place + len(chunk)] = chunk
        at += 3 + len(chunk)
    file(bytes(encoded))


TARGETS: tuple[Callable[[bytes], None], ...] = (file, blocks, patched)


def seeds() -> dict[str, bytes]:
    """Return inputs that reach the depth of every target."""
    files = {f"file-{name}": b"\0" + content for name, content in published().items()}
    return files | {"blocks": b"\1" + published()["bundle.pem"], "patched": b"\2\5\0\x20\1\0"}

"""Host-key documents: the certificates with a machine's public host key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto.keyexchange import CURVE, key_hash
from zseal.errors import InputError
from zseal.hostkeys.certificates import Certificate
from zseal.hostkeys.loading import Source, files_of, is_directory, not_found, parse_objects, read_source
from zseal.hostkeys.names import is_signing_key_name

_HINT_DOCUMENT = "give the host-key document of the machine"


@dataclass(frozen=True)
class HostKeyDocument:
    """A host-key document: the first certificate of a file, which is ``source``.

    ``unused`` is the number of certificates that follow it in that file and are ignored.
    """

    certificate: Certificate
    source: str
    unused: int = 0

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public host key, on P-521; raises InputError for another key, and if this is another certificate."""
        if self.other_role is not None:
            raise InputError(f"not a host-key document, but {self.other_role}", where=self.source, hint=_HINT_DOCUMENT)
        key = _host_key(self.certificate)
        if key is None:
            raise InputError(
                f"the document contains {key_kind(self.certificate)}; a host key is one on secp521r1 (P-521)",
                where=self.source,
                hint=_HINT_DOCUMENT,
            )
        return key

    @property
    def other_role(self) -> str | None:
        """What the certificate is instead of a host-key document; None if it may be one.

        Whoever has the key of a CA or of a signing key could open an image that was sealed for it.
        """
        if is_signing_key_name(self.certificate.raw.subject):
            return "an IBM Z signing key"
        # a certificate that `openssl req -x509` makes for tests claims to be a CA, but states no use of its key
        stated = self.certificate.key_usage is not None and self.certificate.may("key_cert_sign")
        return "a CA certificate" if self.certificate.is_ca and stated else None

    @property
    def key_hash(self) -> bytes:
        """The 32 bytes (phkh) that name the host key in key slots; raises InputError as :attr:`public_key` does."""
        return key_hash(self.public_key)


def _host_key(certificate: Certificate) -> ec.EllipticCurvePublicKey | None:
    key = certificate.key
    return key if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, CURVE) else None


def key_kind(certificate: Certificate) -> str:
    """Return the kind of public key in ``certificate``, in words."""
    key = certificate.key
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"a key on {key.curve.name}"
    if key is None:
        return "a key of an unknown kind"
    kind = type(key).__name__.removesuffix("PublicKey").upper()
    size = getattr(key, "key_size", None)
    return f"an {kind} key" if size is None else f"an {kind} key of {size} bits"


def load_host_key_document(source: Source) -> HostKeyDocument:
    """Return the document in ``source``, a file or its content: the first certificate in it, PEM or DER.

    Raises InputError if it cannot be read or there is none.
    """
    data, name = read_source(source, "host-key document")
    certificates = parse_objects(data, name).certificates
    if not certificates:
        raise not_found("no certificate in it", data, name, "give a host-key document in PEM or DER")
    return HostKeyDocument(certificates[0], name, unused=len(certificates) - 1)


def load_host_key_documents(sources: Iterable[Source]) -> list[HostKeyDocument]:
    """Return the document in each of ``sources``, and in each file of those that are directories.

    Files of a directory that have another kind of certificate are passed over. Raises InputError for the first source
    that has no document.
    """
    return [document for source in sources for document in _documents(source)]


def _documents(source: Source) -> list[HostKeyDocument]:
    if not is_directory(source):
        return [load_host_key_document(source)]
    found = []
    for path in files_of(source):
        data, name = read_source(path, "host-key document")
        if certificates := parse_objects(data, name).certificates:
            document = HostKeyDocument(certificates[0], name, unused=len(certificates) - 1)
            found += [document] if document.other_role is None else []
    if not found:
        raise InputError("no host-key document in the directory", where=str(source), hint=_HINT_DOCUMENT)
    return found


def newest_of_each_key(
    documents: Iterable[HostKeyDocument],
) -> tuple[list[HostKeyDocument], list[tuple[HostKeyDocument, HostKeyDocument]]]:
    """Return one document for each host key, and pairs of one that is left out and the one that is kept instead.

    Documents are issued again for the same host key before they expire: the one that begins last is kept. Raises
    InputError for one that is given twice.
    """
    newest: dict[str | bytes, HostKeyDocument] = {}
    superseded = []
    for document in documents:
        key = _host_key(document.certificate)
        identity = document.source if key is None else key_hash(key)
        known = newest.get(identity)
        if known is None:
            newest[identity] = document
            continue
        if document.certificate.raw == known.certificate.raw:
            raise InputError(
                f"{known.source} and {document.source} are the same document", hint="give every host key once"
            )
        old, new = sorted((known, document), key=lambda each: each.certificate.not_before)
        newest[identity] = new
        superseded.append((old, new))
    return list(newest.values()), superseded

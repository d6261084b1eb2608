"""Host-key documents: the certificates with a machine's public host key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto.keyexchange import CURVE, key_hash
from zseal.errors import InputError
from zseal.hostkeys.certificates import Certificate
from zseal.hostkeys.loading import Source, files_of, parse_objects, read_source


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
        """The public host key; raises InputError unless it is one on P-521."""
        key = self.certificate.key
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVE):
            raise InputError(
                f"the document contains {key_kind(self.certificate)}; a host key is one on secp521r1 (P-521)",
                where=self.source,
                hint="give the host-key document of the machine",
            )
        return key

    @property
    def key_hash(self) -> bytes:
        """The 32 bytes (phkh) that name the host key in key slots; raises InputError unless it is one on P-521."""
        return key_hash(self.public_key)


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
        raise InputError("no certificate in it", where=name, hint="give a host-key document in PEM or DER")
    return HostKeyDocument(certificates[0], name, unused=len(certificates) - 1)


def load_host_key_documents(sources: Iterable[Source]) -> list[HostKeyDocument]:
    """Return the document in each of ``sources``, and in each file of those that are directories.

    Raises InputError for the first that has none.
    """
    return [load_host_key_document(path) for source in sources for path in files_of(source)]

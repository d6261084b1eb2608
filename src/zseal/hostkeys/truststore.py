"""The system's trusted root certificates."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path

from zseal.errors import FormatError, InputError
from zseal.files import read_limited
from zseal.hostkeys.certificates import Certificate, parse_certificate
from zseal.hostkeys.loading import MAX_FILE
from zseal.hostkeys.pem import CERTIFICATE_LABELS, pem_blocks
from zseal.logs import logger

_LOG = logger(__name__)

# places where distributions keep the store, for a Python whose OpenSSL was built to look elsewhere
_USUAL_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
# OpenSSL finds a certificate in a directory by such a name, derived from the hash of its subject
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")


def system_roots() -> tuple[Certificate, ...]:
    """Return the certificates that OpenSSL trusts by default; SSL_CERT_FILE and SSL_CERT_DIR name other places.

    Certificates that cannot be read are omitted: one odd root must not keep the others from being used. So are roots of
    software machines, which have to be named.
    """
    paths = ssl.get_default_verify_paths()
    overridden = paths.openssl_cafile_env in os.environ or paths.openssl_capath_env in os.environ
    files = [Path(paths.cafile)] if paths.cafile else []
    if paths.capath:
        files += sorted(path for path in Path(paths.capath).iterdir() if _HASHED_NAME.fullmatch(path.name))
    if not files and not overridden:
        files = [path for name in _USUAL_FILES if (path := Path(name)).exists()][:1]
    roots: dict[bytes, Certificate] = {}
    for path in files:
        for der in _blocks(path):
            if der in roots:
                continue
            try:
                roots[der] = parse_certificate(der, str(path))
            except FormatError:
                continue
    _LOG.debug("%d roots of the system's trust store in %d files", len(roots), len(files))
    return tuple(root for root in roots.values() if not root.software)


def _blocks(path: Path) -> list[bytes]:
    try:
        return list(pem_blocks(read_limited(path, MAX_FILE, "trust store"), CERTIFICATE_LABELS, str(path)))
    except InputError:
        return []

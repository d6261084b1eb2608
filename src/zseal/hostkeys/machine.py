"""A software IBM Z machine: its host keys, and the documents and certificate chain that name them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from zseal.arch.machine_model import MachineModel
from zseal.crypto.keyexchange import MachineKeys, key_hash
from zseal.errors import FormatError, InputError
from zseal.files import named_path, new_directory, read_description, read_limited, write_atomic
from zseal.formats.key_hashes import pack_key_hashes
from zseal.hostkeys.authority import INTERMEDIATE_CRL, ROOT_CRL, SIGNING_KEY_CRL, Authority, Issuer, issue_crl
from zseal.hostkeys.keyfile import load_private_key, private_key_pem
from zseal.hostkeys.software import MARK

DESCRIPTION = "machine.json"
HOST_KEY = "host-key.pem"
BACKUP_HOST_KEY = "backup-host-key.pem"
HOST_KEY_DOCUMENT = "host-key.crt"
BACKUP_HOST_KEY_DOCUMENT = "backup-host-key.crt"
ROOT_CA = "root-ca.crt"
INTERMEDIATE_CA = "intermediate-ca.crt"
SIGNING_KEY = "signing-key.crt"
ISSUER_KEYS = "issuer-keys"


FORMAT = 1
VALIDITY = timedelta(days=30 * 365)
# .invalid never resolves (RFC 2606), so an online verification immediately finds that there is nothing to fetch
NO_CRL_URL = "http://software-machine.zseal.invalid"
CRLS = (SIGNING_KEY_CRL, INTERMEDIATE_CRL, ROOT_CRL)
_ISSUERS = {ROOT_CA: ROOT_CRL, INTERMEDIATE_CA: INTERMEDIATE_CRL, SIGNING_KEY: SIGNING_KEY_CRL}
_MAX_FILE = 64 << 10
_MAX_NAME = 64


@dataclass(frozen=True)
class Machine:
    """A software machine, stored in a directory.

    ``keys`` are its private host keys, ``host_key_document`` is the certificate for which images are sealed;
    ``backup_host_key_document`` is that of the backup host key.
    """

    directory: Path
    name: str
    created: datetime
    keys: MachineKeys
    host_key_document: x509.Certificate
    backup_host_key_document: x509.Certificate | None
    model: MachineModel = MachineModel.Z17
    """The generation of IBM Z that it stands for."""

    @classmethod
    def create(
        cls,
        directory: str | os.PathLike[str],
        *,
        host_key: Path | None = None,
        backup_host_key: Path | None = None,
        name: str | None = None,
        model: MachineModel = MachineModel.Z17,
        crl_url: str = NO_CRL_URL,
        now: datetime | None = None,
    ) -> Machine:
        """Create the machine in the new directory ``directory`` and return it.

        ``host_key`` and ``backup_host_key`` are files with P-521 private keys to use instead of new ones. ``name``
        (default: the directory's name; 1 to 64 printable characters) becomes part of the subject of its certificates.
        ``model`` is the generation of IBM Z that it stands for. ``crl_url`` is the base address of its CRLs in them:
        nothing needs to be there. ``now`` is the time of issue (default: the clock's).

        The directory appears whole, with mode 0700 and keys 0600, or not at all. Raises OutputError if it exists or
        cannot be written, InputError for an unsuitable key or name.
        """
        directory = named_path(directory)
        name = _checked_name(directory.absolute().name if name is None else name)
        if not crl_url.startswith(("http://", "https://")):
            raise InputError("the address of the CRLs must begin with http:// or https://", where=crl_url)
        created = (datetime.now(UTC) if now is None else now).astimezone(UTC).replace(microsecond=0)
        host = load_private_key(host_key) if host_key else ec.generate_private_key(ec.SECP521R1())
        backup = load_private_key(backup_host_key) if backup_host_key else ec.generate_private_key(ec.SECP521R1())
        if host.private_numbers() == backup.private_numbers():
            raise InputError("the backup host key is the host key", where=str(backup_host_key))
        # issued a day earlier: a verifier's clock may be slow
        issued = created - timedelta(days=1)
        authority = Authority.create(name, crl_url=crl_url, not_before=issued, not_after=issued + VALIDITY)
        document = authority.issue_host_key_document(host.public_key(), "host key")
        backup_document = authority.issue_host_key_document(backup.public_key(), "backup host key")
        description = {"format": FORMAT, "kind": MARK, "name": name, "created": created.isoformat()}
        description["model"] = model.value
        public = {
            DESCRIPTION: json.dumps(description, indent=2).encode() + b"\n",
            HOST_KEY_DOCUMENT: document.public_bytes(Encoding.PEM),
            BACKUP_HOST_KEY_DOCUMENT: backup_document.public_bytes(Encoding.PEM),
            ROOT_CA: authority.root.certificate.public_bytes(Encoding.PEM),
            INTERMEDIATE_CA: authority.intermediate.certificate.public_bytes(Encoding.PEM),
            SIGNING_KEY: authority.signing_key.certificate.public_bytes(Encoding.PEM),
            **{file: crl.public_bytes(Encoding.PEM) for file, crl in authority.issue_crls().items()},
        }
        private = {
            HOST_KEY: private_key_pem(host),
            BACKUP_HOST_KEY: private_key_pem(backup),
            f"{ISSUER_KEYS}/root-ca.pem": private_key_pem(authority.root.key),
            f"{ISSUER_KEYS}/intermediate-ca.pem": private_key_pem(authority.intermediate.key),
            f"{ISSUER_KEYS}/signing-key.pem": private_key_pem(authority.signing_key.key),
        }
        _write_directory(directory, public, private)
        return cls(directory, name, created, MachineKeys(host, backup), document, backup_document, model)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Machine:
        """Return the machine in ``directory``; raises InputError if it is not a machine or its files do not match."""
        directory = named_path(directory)
        description = read_description(
            directory, DESCRIPTION, _MAX_FILE, "software machine", "create one with: `Machine.create()`"
        )
        name, created, model = _parse_description(description, directory / DESCRIPTION)
        host = load_private_key(directory / HOST_KEY)
        document = _load_document(directory / HOST_KEY_DOCUMENT, host)
        backup, backup_document = None, None
        if (directory / BACKUP_HOST_KEY).exists():
            backup = load_private_key(directory / BACKUP_HOST_KEY)
            backup_document = _load_document(directory / BACKUP_HOST_KEY_DOCUMENT, backup)
        return cls(directory, name, created, MachineKeys(host, backup), document, backup_document, model)

    @property
    def host_key_hashes(self) -> tuple[bytes, ...]:
        """The 32-byte hashes (phkh) of the host key and of the backup host key, if there is one."""
        keys = (self.keys.host, self.keys.backup)
        return tuple(key_hash(key.public_key()) for key in keys if key is not None)

    def key_hashes_file(self) -> str:
        """Return the content of ``/sys/firmware/uv/keys/all`` on this machine."""
        return pack_key_hashes(self.host_key_hashes)

    def reissue_crls(
        self, *, revoke: Sequence[x509.Certificate] = (), days: float | None = None, now: datetime | None = None
    ) -> None:
        """Write new CRLs that list the certificates ``revoke`` of this machine and no others.

        They end ``days`` after ``now`` (default: the clock's time), which may be in the past; without ``days``,
        together with the machine's certificates. Raises InputError for a certificate that this machine did not issue.
        """
        now = (datetime.now(UTC) if now is None else now).astimezone(UTC).replace(microsecond=0)
        remaining = list(revoke)
        crls: dict[str, x509.CertificateRevocationList] = {}
        for certificate_file, crl_file in _ISSUERS.items():
            issuer = Issuer(
                _load_certificate(self.directory / certificate_file),
                load_private_key(self.directory / ISSUER_KEYS / Path(certificate_file).with_suffix(".pem")),
            )
            mine = [certificate for certificate in remaining if _is_issued_by(certificate, issuer.certificate)]
            remaining = [certificate for certificate in remaining if certificate not in mine]
            end = issuer.certificate.not_valid_after_utc if days is None else now + timedelta(days=days)
            crls[crl_file] = issue_crl(
                issuer,
                this_update=min(now, end) - timedelta(days=1),
                next_update=end,
                revoked=[certificate.serial_number for certificate in mine],
                number=_crl_number(self.directory / crl_file) + 1,
            )
        if remaining:
            raise InputError("this machine did not issue the certificate to revoke", where=str(self.directory))
        for crl_file, crl in crls.items():
            write_atomic(self.directory / crl_file, crl.public_bytes(Encoding.PEM), overwrite=True, mode=0o644)


def _checked_name(name: str) -> str:
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable() or name != name.strip():
        raise InputError(f"a machine's name has 1 to {_MAX_NAME} printable characters", where=name, hint="give `name`")
    return name


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _write_directory(directory: Path, public: dict[str, bytes], private: dict[str, bytes]) -> None:
    with new_directory(directory, what="machine", hint="choose a directory that does not exist yet") as part:
        (part / ISSUER_KEYS).mkdir(mode=0o700)
        for files, mode in ((public, 0o644), (private, 0o600)):
            for name, data in files.items():
                write_atomic(part / name, data, overwrite=False, mode=mode)


def _parse_description(data: bytes, path: Path) -> tuple[str, datetime, MachineModel]:
    try:
        description = json.loads(data)
        if description["kind"] != MARK or description["format"] != FORMAT:
            raise FormatError(
                f"not the description of a software machine of format {FORMAT}",
                where=str(path),
                hint="create a new machine",
            )
        # machines made before there were models have none
        model = MachineModel(description.get("model", MachineModel.Z17.value))
        return str(description["name"]), datetime.fromisoformat(description["created"]), model
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError("damaged description of a software machine", where=str(path)) from error


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_limited(path, _MAX_FILE, "certificate"))
    except ValueError as error:
        raise FormatError("not a certificate in PEM", where=str(path)) from error


def _crl_number(path: Path) -> int:
    try:
        crl = x509.load_pem_x509_crl(read_limited(path, _MAX_FILE, "CRL"))
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (ValueError, x509.ExtensionNotFound) as error:
        raise FormatError("not a CRL of this software machine", where=str(path)) from error


def _load_document(path: Path, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    document = _load_certificate(path)
    if document.public_key() != key.public_key():
        raise InputError("the host-key document does not match the host key next to it", where=str(path))
    return document

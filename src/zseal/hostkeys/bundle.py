"""Bundles: one directory with the certificates and CRLs to verify host-key documents with.

A bundle replaces the many files that every command would otherwise need, and it can be carried to a computer without a
network. It contains ``certificates/`` (signing keys and intermediate CAs), ``crls/``, optionally ``host-keys/``
(host-key documents, whose distribution points show where the signing keys' CRLs are) and ``root-ca.crt``. Everything
added to it is checked: a CRL must be signed by a certificate of the bundle or a trusted root, and never replaces a
newer one. The root of a software machine is not added: it has to be named with every use.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from zseal.errors import FormatError, InputError
from zseal.files import named_path, new_directory, read_description, write_atomic
from zseal.hostkeys import machine
from zseal.hostkeys.certificates import Certificate, Crl
from zseal.hostkeys.describe import Role, State, Validity, role_of, validity_of
from zseal.hostkeys.document import HostKeyDocument, load_host_key_document, load_host_key_documents
from zseal.hostkeys.fetch import Downloader, Fetch, fetch_url
from zseal.hostkeys.loading import Objects, load_crls, load_objects, load_root
from zseal.hostkeys.names import is_signing_key_name
from zseal.hostkeys.truststore import system_roots

DESCRIPTION = "bundle.json"
CERTIFICATES = "certificates"
CRLS = "crls"
HOST_KEYS = "host-keys"
ROOT_CA = "root-ca.crt"

FORMAT = 1
MAX_FILES = 1000
_MAX_DESCRIPTION = 64 << 10


@dataclass(frozen=True)
class Changes:
    """The result of an update: the files written, and why an expected file is missing."""

    written: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Bundle:
    """The content of the bundle in ``directory``; ``root_ca`` is empty if the system's trusted roots are used."""

    directory: Path
    certificates: tuple[Certificate, ...]
    crls: tuple[Crl, ...]
    host_key_documents: tuple[HostKeyDocument, ...]
    root_ca: tuple[Certificate, ...]

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        certificates: Iterable[Path],
        crls: Iterable[Path] = (),
        host_key_documents: Iterable[Path] = (),
        root_ca: Path | None = None,
        offline: bool = False,
        fetch: Fetch = fetch_url,
        now: datetime | None = None,
    ) -> tuple[Bundle, Changes]:
        """Create a bundle in the new directory ``directory`` from files, and fetch CRLs unless ``offline``.

        At least one certificate must be a signing key. The directory appears whole or not at all. Raises OutputError if
        it exists or cannot be written, InputError for unsuitable files.
        """
        with new_directory(directory, what="bundle", hint="use: `Bundle.update()`", mode=0o755) as part:
            for folder in (CERTIFICATES, CRLS, HOST_KEYS):
                (part / folder).mkdir(mode=0o755)
            write_atomic(
                part / DESCRIPTION, json.dumps({"format": FORMAT}).encode() + b"\n", overwrite=False, mode=0o644
            )
            _, changes = cls.load(part).update(
                certificates=certificates,
                crls=crls,
                host_key_documents=host_key_documents,
                root_ca=root_ca,
                offline=offline,
                fetch=fetch,
                now=now,
            )
        return cls.load(directory), changes

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> Bundle:
        """Return the bundle in ``directory``; raises InputError if it is not a bundle or a file in it is damaged.

        The directory of a software machine also serves as a bundle, but without its root, which has to be named.
        """
        directory = named_path(directory)
        if (directory / machine.DESCRIPTION).is_file():
            return cls._of_machine(directory)
        description = read_description(
            directory,
            DESCRIPTION,
            _MAX_DESCRIPTION,
            "bundle",
            "create one with: `Bundle.create()`",
        )
        _check_description(description, directory / DESCRIPTION)
        root_path = directory / ROOT_CA
        root = load_root(root_path).certificates if root_path.exists() else ()
        _refuse_software(root, root_path)
        given = sum((load_objects(path) for path in _files(directory / CERTIFICATES)), Objects())
        return cls(
            directory=directory,
            certificates=given.certificates,
            crls=tuple(crl for path in _files(directory / CRLS) for crl in load_crls(path)),
            host_key_documents=tuple(load_host_key_document(path) for path in _files(directory / HOST_KEYS)),
            root_ca=root,
        )

    @classmethod
    def _of_machine(cls, directory: Path) -> Bundle:
        certificates = (machine.SIGNING_KEY, machine.INTERMEDIATE_CA)
        return cls(
            directory=directory,
            certificates=sum((load_objects(directory / name) for name in certificates), Objects()).certificates,
            crls=tuple(crl for name in machine.CRLS for crl in load_crls(directory / name)),
            host_key_documents=(load_host_key_document(directory / machine.HOST_KEY_DOCUMENT),),
            root_ca=(),
        )

    @property
    def signing_keys(self) -> tuple[Certificate, ...]:
        """The signing keys, of which there may be several generations."""
        return tuple(item for item in self.certificates if is_signing_key_name(item.raw.subject))

    def update(
        self,
        *,
        certificates: Iterable[Path] = (),
        crls: Iterable[Path] = (),
        host_key_documents: Iterable[Path] = (),
        root_ca: Path | None = None,
        offline: bool = False,
        fetch: Fetch = fetch_url,
        now: datetime | None = None,
    ) -> tuple[Bundle, Changes]:
        """Add files to the bundle, renew its CRLs from their distribution points unless ``offline``, and return it.

        Each file is replaced atomically, so an interrupted update leaves a working bundle. A CRL that cannot be fetched
        is a problem in the result, not an error. Raises InputError for unsuitable files, before anything is written.
        """
        if (self.directory / machine.DESCRIPTION).exists():
            raise InputError(
                "this is a software machine, not a bundle",
                where=str(self.directory),
                hint="use: `Machine.reissue_crls()`",
            )
        now = datetime.now(UTC) if now is None else now
        given = sum((load_objects(path) for path in certificates), Objects())
        documents = load_host_key_documents(host_key_documents)
        root = load_root(root_ca) if root_ca is not None else Objects()
        if root_ca is not None:
            _refuse_software(root.certificates, root_ca)
        pool = _distinct([*self.certificates, *given.certificates])
        if not any(is_signing_key_name(item.raw.subject) for item in pool):
            raise InputError(
                "none of the certificates is an IBM Z signing key",
                where=str(self.directory),
                hint="give the certificate of the signing key with `certificates`",
            )
        for document in documents:
            _ = document.public_key  # refuses other kinds of keys
        issuers = [*pool, *(root.certificates or self.root_ca or system_roots())]
        files: dict[Path, bytes] = {}
        if root.certificates:
            files[self.directory / ROOT_CA] = b"".join(item.pem() for item in root.certificates)
        for certificate in given.certificates:
            files[self.directory / CERTIFICATES / _certificate_name(certificate)] = certificate.pem()
        for document in documents:
            name = f"host-key-{document.key_hash.hex()[:16]}.crt"
            files[self.directory / HOST_KEYS / name] = document.certificate.pem()
        lists = [*(crl for path in crls for crl in load_crls(path)), *given.crls, *root.crls]
        for crl in lists:
            if not _belongs(crl, pool, issuers):
                raise InputError(
                    "the CRL is not signed by any certificate of the bundle",
                    where=crl.source,
                    hint="give the certificate of its issuer with `certificates`, or the root with `root_ca`",
                )
        problems: list[str] = []
        if not offline:
            subjects = [*pool, *(item.certificate for item in (*self.host_key_documents, *documents))]
            for crl in _fetched(subjects, fetch, problems):
                if _belongs(crl, pool, issuers):
                    lists.append(crl)
                else:
                    problems.append(f"{crl.source}: the CRL there is not signed by any certificate of the bundle")
        files.update(self._newer_crls(lists, issuers))
        changed = {path: data for path, data in files.items() if not path.exists() or path.read_bytes() != data}
        for path, data in changed.items():
            write_atomic(path, data, overwrite=True, mode=0o644)
        updated = Bundle.load(self.directory)
        problems += [
            f"no current CRL of {item.subject}" for item in updated.inventory(days=0, now=now) if _lacks_crl(item)
        ]
        return updated, Changes(tuple(str(path.relative_to(self.directory)) for path in changed), tuple(problems))

    def _newer_crls(self, lists: Sequence[Crl], issuers: Sequence[Certificate]) -> dict[Path, bytes]:
        newest = {self.directory / CRLS / Path(crl.source).name: crl for crl in self.crls}
        files: dict[Path, bytes] = {}
        for crl in lists:
            path = self.directory / CRLS / _crl_name(crl, _signer(crl, issuers))
            known = newest.get(path)
            if known is None or _age(crl) > _age(known):
                newest[path] = crl
                files[path] = crl.pem()
        return files

    def inventory(self, *, days: float | None = None, now: datetime | None = None) -> list[Validity]:
        """Return when everything in the bundle expires, and which CRLs are missing.

        An item that ends within ``days`` after ``now`` (default: the clock's time) is expiring; for None see
        :func:`zseal.hostkeys.describe.validity_of`.
        """
        now = datetime.now(UTC) if now is None else now
        content: list[Certificate | Crl] = [item.certificate for item in self.host_key_documents]
        content += [*self.certificates, *self.root_ca, *self.crls]
        items = [validity_of(item, days=days, now=now) for item in content]
        names = {item.issuer_label for item in self.certificates if not self._has_crl_for(item)}
        names |= {key.label for key in self.signing_keys if not any(crl.is_signed_by(key.key) for crl in self.crls)}
        missing = [Validity(Role.CRL, name, str(self.directory), None, None, State.MISSING) for name in sorted(names)]
        return items + missing

    def _has_crl_for(self, certificate: Certificate) -> bool:
        return any(crl.issuer == certificate.issuer for crl in self.crls)


def _lacks_crl(item: Validity) -> bool:
    return item.role is Role.CRL and not item.state.is_fine


def _check_description(data: bytes, path: Path) -> None:
    try:
        if json.loads(data)["format"] == FORMAT:
            return
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise FormatError(
        f"not the description of a bundle of format {FORMAT}", where=str(path), hint="create a new bundle"
    )


def _files(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=str(folder)) from error
    if len(files) > MAX_FILES:
        raise InputError(f"more than {MAX_FILES} files", where=str(folder))
    return files


def _refuse_software(roots: Iterable[Certificate], path: Path) -> None:
    if any(root.software for root in roots):
        raise InputError(
            "this is the root of a software machine, which a bundle does not make trusted",
            where=str(path),
            hint="omit it here, and name it with `root_ca` in addition to `bundle`",
        )


def _distinct(certificates: Iterable[Certificate]) -> list[Certificate]:
    return list({item.raw.fingerprint(hashes.SHA256()): item for item in certificates}.values())


def _certificate_name(certificate: Certificate) -> str:
    role = role_of(certificate).value.lower().replace(" ", "-")
    return f"{role}-{certificate.raw.fingerprint(hashes.SHA256()).hex()[:16]}.crt"


def _crl_name(crl: Crl, signer: Certificate | None) -> str:
    # one file for each issuer: a newer list replaces the older one
    role = Role.ROOT_CA if signer is None else role_of(signer)
    issuer = (signer.key_id, signer.subject_text) if signer else (crl.authority, crl.issuer_text)
    identity = repr((issuer, crl.points, crl.complete))
    name = role.value.lower().replace(" ", "-")
    return f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.crl"


def _age(crl: Crl) -> tuple[datetime, int]:
    return crl.this_update, crl.number or 0


def _signer(crl: Crl, issuers: Iterable[Certificate]) -> Certificate | None:
    for item in issuers:
        # a signing key's CRL may name the key differently than its certificate does
        named = crl.issuer == item.subject or is_signing_key_name(item.raw.subject)
        if named and crl.may_be_from(item) and crl.is_signed_by(item.key):
            return item
    return None


def _belongs(crl: Crl, certificates: Iterable[Certificate], issuers: Sequence[Certificate]) -> bool:
    if _signer(crl, issuers) is not None:
        return True
    # the list of a root that is neither here nor in the system's store: it is checked when that root is named
    known = {item.subject for item in issuers}
    return crl.issuer not in known and any(
        item.issuer == crl.issuer and (crl.authority is None or item.authority == crl.authority)
        for item in certificates
    )


def _fetched(subjects: Iterable[Certificate], fetch: Fetch, problems: list[str]) -> list[Crl]:
    downloader = Downloader(fetch)
    found = [crl for certificate in subjects for crl in downloader.crls_for(certificate)]
    problems += downloader.problems
    return found

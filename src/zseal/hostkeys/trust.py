"""The material to verify host-key documents with, gathered from files and bundles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from zseal.hostkeys.bundle import Bundle
from zseal.hostkeys.certificates import Certificate, Crl
from zseal.hostkeys.document import HostKeyDocument
from zseal.hostkeys.fetch import Fetch, fetch_url
from zseal.hostkeys.loading import Objects, Source, is_directory, load_crls, load_objects, load_root
from zseal.hostkeys.results import HostKeyReport
from zseal.hostkeys.verify import check_host_key_documents


@dataclass(frozen=True)
class TrustMaterial:
    """Certificates, CRLs and trusted roots for a verification.

    ``root_ca`` is None for the system's trusted roots. ``choose_signing_key`` allows several signing keys among the
    certificates: each document is checked with the one that it names.
    """

    certificates: tuple[Certificate, ...]
    crls: tuple[Crl, ...] = ()
    root_ca: tuple[Certificate, ...] | None = None
    choose_signing_key: bool = False

    @classmethod
    def load(
        cls,
        *,
        certificates: Iterable[Source] = (),
        crls: Iterable[Source] = (),
        root_ca: Source | None = None,
        bundle: Path | None = None,
    ) -> TrustMaterial:
        """Return the content of these files, each PEM (any number of certificates and CRLs) or DER.

        Of a directory every file that is named like a certificate or CRL is taken; its certificates may be signing keys
        of several generations. CRLs in the files of certificates and roots count too. ``bundle`` is the directory of a
        bundle, whose content is added; ``root_ca`` replaces its root. Raises InputError for a file that cannot be read
        or lacks the expected content.
        """
        sources = tuple(certificates)
        given = sum((load_objects(source) for source in sources), Objects())
        lists = tuple(crl for source in crls for crl in load_crls(source))
        root = load_root(root_ca) if root_ca is not None else None
        kept = Bundle.load(bundle) if bundle is not None else None
        trusted = root.certificates if root else (kept.root_ca if kept else ())
        return cls(
            certificates=given.certificates + (kept.certificates if kept else ()),
            crls=lists + given.crls + (root.crls if root else ()) + (kept.crls if kept else ()),
            root_ca=trusted or None,
            choose_signing_key=kept is not None or any(map(is_directory, sources)),
        )

    def verify(
        self,
        documents: Sequence[HostKeyDocument],
        *,
        offline: bool = False,
        fetch: Fetch = fetch_url,
        now: datetime | None = None,
    ) -> HostKeyReport:
        """Return the report on ``documents``; raises HostKeyVerificationError for the first that is refused."""
        report = self.check(documents, offline=offline, fetch=fetch, now=now)
        report.raise_for_refusal()
        return report

    def check(
        self,
        documents: Sequence[HostKeyDocument],
        *,
        offline: bool = False,
        fetch: Fetch = fetch_url,
        now: datetime | None = None,
    ) -> HostKeyReport:
        """Return the report on ``documents`` without raising for those that are refused."""
        return check_host_key_documents(
            documents,
            certificates=self.certificates,
            crls=self.crls,
            root_ca=self.root_ca,
            offline=offline,
            fetch=fetch,
            now=now,
            choose_signing_key=self.choose_signing_key,
        )

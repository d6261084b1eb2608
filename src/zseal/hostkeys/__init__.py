"""Host-key documents: load and verify them, keep the material to verify them with, and create software machines.

The names below are the interface. They are imported when first used, because most need cryptography.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.hostkeys.bundle import Bundle
    from zseal.hostkeys.document import HostKeyDocument, load_host_key_document, load_host_key_documents
    from zseal.hostkeys.fetch import FetchError, fetch_url
    from zseal.hostkeys.loading import parse_objects
    from zseal.hostkeys.machine import Machine
    from zseal.hostkeys.results import (
        DocumentReport,
        Failure,
        HostKeyReport,
        HostKeyRule,
        HostKeyVerificationError,
        Reason,
    )
    from zseal.hostkeys.trust import TrustMaterial

__all__ = [
    "Bundle",
    "DocumentReport",
    "Failure",
    "FetchError",
    "HostKeyDocument",
    "HostKeyReport",
    "HostKeyRule",
    "HostKeyVerificationError",
    "Machine",
    "Reason",
    "TrustMaterial",
    "fetch_url",
    "load_host_key_document",
    "load_host_key_documents",
    "parse_objects",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        bundle=("Bundle",),
        document=("HostKeyDocument", "load_host_key_document", "load_host_key_documents"),
        fetch=("FetchError", "fetch_url"),
        loading=("parse_objects",),
        machine=("Machine",),
        results=("DocumentReport", "Failure", "HostKeyVerificationError", "Reason", "HostKeyReport", "HostKeyRule"),
        trust=("TrustMaterial",),
    )

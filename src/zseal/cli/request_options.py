"""Options that requests to the ultravisor share: host-key documents, and the image that a request is about."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zseal.errors import InputError, UsageError

if TYPE_CHECKING:
    from zseal.formats.header_tags import HeaderTags
    from zseal.hostkeys.document import HostKeyDocument
    from zseal.secret import Secret
    from zseal.uvdevice import GuestUltravisor


def add_host_key_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options for host-key documents and their verification."""
    add = parser.add_argument
    add(
        "-k",
        "--host-key-document",
        metavar="FILE",
        action="append",
        required=True,
        help="Host-key document of a machine that may open the request (repeatable, or separated by commas).",
    )
    add("--no-verify", action="store_true", help="Do not verify the host-key documents.")
    add(
        "-C",
        "--cert",
        "--crt",
        metavar="FILE",
        action="append",
        help="Certificates for verification: the IBM Z signing key and intermediate CAs (repeatable).",
    )
    add("--crl", metavar="FILE", action="append", help="Certificate revocation list (repeatable).")
    add("--offline", action="store_true", help="Do not fetch revocation lists.")
    add("--root-ca", metavar="FILE", type=Path, help="Trust this root CA instead of the system's.")
    add(
        "--bundle",
        metavar="DIR",
        type=Path,
        help="Directory of certificates and CRLs made by zseal hostkey bundle, or of a software machine.",
    )


def verified_documents(options: argparse.Namespace) -> Sequence[HostKeyDocument]:
    """Return the host-key documents, verified unless the options say otherwise; warnings go to stderr."""
    from zseal.cli.hostkey.options import load_trust, print_warnings, split_files
    from zseal.hostkeys.document import load_host_key_document

    trust = load_trust(
        cert=options.cert,
        crl=options.crl,
        root_ca=[options.root_ca] if options.root_ca else None,
        bundle=options.bundle,
        no_verify=options.no_verify,
    )
    documents = [load_host_key_document(path) for path in expanded(split_files(options.host_key_document))]
    if trust is not None:
        for report in trust.verify(documents, offline=options.offline).documents:
            print_warnings(report)
    return documents


def expanded(paths: Sequence[Path]) -> list[Path]:
    """Return ``paths`` with the files of each directory in its place, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        found += sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    return found


def header_tags(path: Path) -> HeaderTags:
    """Return the header tags of the image or SE header in the file ``path``."""
    from zseal.formats.header_tags import HeaderTags
    from zseal.image.read import read_image

    return HeaderTags.of(read_image(path).header)


def read_key(path: Path, size: int, what: str) -> Secret:
    """Return the key in a file of exactly ``size`` bytes; raises InputError for another size."""
    from zseal.files import read_limited
    from zseal.secret import Secret

    data = read_limited(path, 1 << 16, what)
    if len(data) != size:
        raise InputError(f"the {what} has {len(data)} bytes, not {size}", where=os.fspath(path))
    return Secret(data)


def add_guest_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options that let a software machine play a guest, instead of the guest in which the command runs."""
    add = parser.add_argument
    add("--image", metavar="IMG", type=Path, help="Play a guest with this image (needs --machine), without booting it.")
    add("--machine", metavar="DIR", type=Path, help="Software machine that plays the guest.")
    add("--state", metavar="DIR", type=Path, help="Keep the played guest's secrets in DIR (created if it is missing).")


def open_ultravisor(options: argparse.Namespace) -> contextlib.AbstractContextManager[GuestUltravisor]:
    """Return /dev/uv of this guest, or the played guest that the options name."""
    if options.image is None and options.machine is None and options.state is None:
        from zseal.uvdevice import Uvdevice

        return Uvdevice()
    if options.image is None or options.machine is None:
        raise UsageError("a played guest needs both --image and --machine")
    from zseal.hostkeys.machine import Machine
    from zseal.image.read import read_image
    from zseal.model.kept_guest import KeptGuest
    from zseal.model.played_guest import PlayedGuest

    machine = Machine.load(options.machine)
    header = read_image(options.image).header.pack()
    if options.state is None:
        return PlayedGuest(machine.keys, header, model=machine.model)
    return KeptGuest(options.state, machine.keys, header, model=machine.model)

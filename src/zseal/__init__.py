"""IBM Secure Execution (s390x protected virtualization) in Python: images, host keys, guests, and an ultravisor.

Three places to start::

    from pathlib import Path

    import zseal

    # Seal an image that only chosen machines can open. This one is made of software; the host-key document of a
    # real machine comes from IBM, and zseal.TrustMaterial verifies it.
    machine = zseal.Machine.create(Path("my-machine"))
    document = zseal.load_host_key_document("my-machine/host-key.crt")
    zseal.build_image(
        "linux.img", kernel="vmlinuz", ramdisk="initrd.img", cmdline=b"quiet", host_keys=[document.public_key]
    )

    # Run it as a protected guest, on any computer.
    with zseal.Guest(Path("linux.img"), machine=machine, timeout=120) as guest:
        print(guest.wait_for_output("login:"))

    # Find out whether this host and a libvirt domain are ready for real hardware, and what a code or a file means.
    print(zseal.check_host(zseal.LiveHost()).ready, zseal.lint_domain("guest.xml").findings)
    print(zseal.explain(["0x0108", "0x0005"]), zseal.inspect(Path("linux.img")))

Everything that zseal raises on purpose is a :class:`ZsealError`. Each name below is imported when it is first used. The
packages ``zseal.guest``, ``zseal.image``, ``zseal.hostkeys``, ``zseal.domain``, ``zseal.readiness``,
``zseal.ultravisor`` and others offer more; docs/api.md describes them all. Names that no package lists in ``__all__``
may change without notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names
from zseal.version import __version__

if TYPE_CHECKING:
    from zseal.domain import convert_domain, create_domain, fix_domain, lint_domain
    from zseal.engine import Disk, EngineError, UserNetwork
    from zseal.errors import (
        FormatError,
        InputError,
        MissingDependencyError,
        OutputError,
        UsageError,
        VerificationError,
        ZsealError,
    )
    from zseal.explanations import explain
    from zseal.guest import ConsoleOutput, Ended, Guest, GuestControl, Outcome, Protected, Result, list_guests
    from zseal.hostkeys import (
        Bundle,
        HostKeyDocument,
        HostKeyVerificationError,
        Machine,
        TrustMaterial,
        load_host_key_document,
        load_host_key_documents,
    )
    from zseal.image import Controls, Image, ImageKeys, build_image, compare_images, read_image, verify_image
    from zseal.inspection import inspect
    from zseal.model import ModelGuest, ModelMachine
    from zseal.readiness import CapturedHost, LiveHost, check_host
    from zseal.secret import Secret
    from zseal.ultravisor import Ultravisor

__all__ = [
    "Bundle",
    "CapturedHost",
    "ConsoleOutput",
    "Controls",
    "Disk",
    "Ended",
    "EngineError",
    "FormatError",
    "Guest",
    "GuestControl",
    "HostKeyDocument",
    "HostKeyVerificationError",
    "Image",
    "ImageKeys",
    "InputError",
    "LiveHost",
    "Machine",
    "MissingDependencyError",
    "ModelGuest",
    "ModelMachine",
    "Outcome",
    "OutputError",
    "Protected",
    "Result",
    "Secret",
    "TrustMaterial",
    "Ultravisor",
    "UsageError",
    "UserNetwork",
    "VerificationError",
    "ZsealError",
    "__version__",
    "build_image",
    "check_host",
    "compare_images",
    "convert_domain",
    "create_domain",
    "explain",
    "fix_domain",
    "inspect",
    "lint_domain",
    "list_guests",
    "load_host_key_document",
    "load_host_key_documents",
    "read_image",
    "verify_image",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        domain=("convert_domain", "create_domain", "fix_domain", "lint_domain"),
        engine=("Disk", "EngineError", "UserNetwork"),
        errors=(
            "FormatError",
            "InputError",
            "MissingDependencyError",
            "OutputError",
            "UsageError",
            "VerificationError",
            "ZsealError",
        ),
        explanations=("explain",),
        guest=("ConsoleOutput", "Ended", "Guest", "GuestControl", "Outcome", "Protected", "Result", "list_guests"),
        hostkeys=(
            "Bundle",
            "HostKeyDocument",
            "HostKeyVerificationError",
            "Machine",
            "TrustMaterial",
            "load_host_key_document",
            "load_host_key_documents",
        ),
        image=("Controls", "Image", "ImageKeys", "build_image", "compare_images", "read_image", "verify_image"),
        inspection=("inspect",),
        model=("ModelGuest", "ModelMachine"),
        readiness=("CapturedHost", "LiveHost", "check_host"),
        secret=("Secret",),
        ultravisor=("Ultravisor",),
    )

"""Reads what libvirt's own XML shows about protected guests: domain capabilities and cached QEMU descriptions.

The parser resolves no entities, loads no external files and uses no network.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from zseal.errors import FormatError

if TYPE_CHECKING:
    from lxml import etree

MAX_XML_BYTES = 4 << 20


def parse_xml(data: bytes, what: str) -> etree._Element:
    """Return the root of the XML document ``data``, which is ``what`` for messages.

    Raises FormatError if it is larger than 4 MiB, not well-formed, or declares a document type.
    """
    from lxml import etree

    if len(data) > MAX_XML_BYTES:
        raise FormatError(f"too large for {what}: more than {MAX_XML_BYTES} bytes")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise FormatError(f"not well-formed {what}: {error.msg or 'it is empty'}") from error
    except ValueError as error:
        raise FormatError(f"not readable as {what}: {error}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise FormatError(f"{what} with a document type declaration is refused")
    return root


@dataclasses.dataclass(frozen=True)
class DomainCapabilities:
    """What ``virsh domcapabilities`` shows about protected guests.

    ``s390_pv`` is None if the element is missing (libvirt too old to make a statement). ``security_types`` is None
    without a ``launchSecurity`` block (before libvirt 10.5.0). ``unpack`` is whether the host model *requires* the
    feature; the same word inside ``blockers`` means the opposite.
    """

    emulator: str | None
    virt_type: str | None
    arch: str | None
    machine: str | None
    s390_pv: bool | None
    security_types: tuple[str, ...] | None
    host_model: str | None
    unpack: bool


def parse_domain_capabilities(data: bytes) -> DomainCapabilities:
    """Read a ``domainCapabilities`` document; raises FormatError for other documents."""
    root = parse_xml(data, "domain capabilities")
    if root.tag != "domainCapabilities":
        raise FormatError(f"expected domain capabilities, found the element {str(root.tag)[:40]}")
    pv = root.find("features/s390-pv")
    security = root.find("features/launchSecurity")
    types = None
    if security is not None:
        listed = security.findall("enum[@name='sectype']/value")
        types = tuple((v.text or "").strip() for v in listed) if security.get("supported") == "yes" else ()
    model = root.find("cpu/mode[@name='host-model']")
    offered = model is not None and model.get("supported") == "yes"
    name = model.findtext("model") if model is not None and offered else None
    return DomainCapabilities(
        emulator=root.findtext("path"),
        virt_type=root.findtext("domain"),
        arch=root.findtext("arch"),
        machine=root.findtext("machine"),
        s390_pv=None if pv is None else pv.get("supported") == "yes",
        security_types=types,
        host_model=name,
        unpack=model is not None and offered and model.find("feature[@policy='require'][@name='unpack']") is not None,
    )


@dataclasses.dataclass(frozen=True)
class CachedEmulator:
    """One file of libvirt's capabilities cache: what libvirt stored about a QEMU program.

    ``secure_guest`` is libvirt's marker that the host could run protected guests when the entry was made.
    ``unpack`` is whether QEMU's expanded host CPU model had the feature, None if KVM was not usable then.
    ``kernel`` is the release and version of the kernel that ran then.
    """

    file: str
    emulator: str | None
    arch: str | None
    libvirt_version: int | None
    qemu_version: int | None
    kernel: str | None
    secure_guest: bool
    unpack: bool | None


def _number(text: str | None) -> int | None:
    digits = (text or "").strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 12 else None


def parse_cached_emulator(file: str, data: bytes) -> CachedEmulator:
    """Read the cache file named ``file``; raises FormatError for other documents."""
    root = parse_xml(data, "libvirt capabilities cache")
    if root.tag != "qemuCaps":
        raise FormatError(f"expected a cached QEMU description, found the element {str(root.tag)[:40]}")
    host_cpu = root.find("hostCPU[@type='kvm']")
    unpack = None
    if host_cpu is not None:
        feature = host_cpu.find("property[@name='unpack']")
        unpack = feature is not None and feature.get("value") == "true"
    return CachedEmulator(
        file=file,
        emulator=root.findtext("emulator"),
        arch=root.findtext("arch"),
        libvirt_version=_number(root.findtext("selfvers")),
        qemu_version=_number(root.findtext("version")),
        kernel=root.findtext("kernelVersion"),
        secure_guest=root.find("kvmSupportsSecureGuest") is not None,
        unpack=unpack,
    )

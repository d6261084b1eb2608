"""libvirt's XML, and files with kernel parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from zseal.errors import FormatError
from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value
from zseal.libvirt.capabilities import (
    MAX_XML_BYTES,
    parse_cached_emulator,
    parse_domain_capabilities,
    parse_xml,
)
from zseal.linux.cmdline import split_command_line

if TYPE_CHECKING:
    from lxml import etree

# possessive, so that a file of nothing but comments is not tried in every grouping
_FIRST_ELEMENT = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*+(?:<\?xml[^>]{0,200}\?>\s*+)?(?:<!--(?:(?!-->).){0,4096}+-->\s*+)*+<([A-Za-z][\w:.-]{0,40})",
    re.DOTALL,
)


def _text(root: etree._Element, path: str) -> str | None:
    text = root.findtext(path)
    return text.strip()[:200] if text else None


def _domain(root: etree._Element, _: bytes) -> dict[str, Value]:
    security = root.find("launchSecurity")
    os_type = root.find("os/type")
    drivers = root.findall("devices/*/driver[@iommu='on']")
    style = "launchSecurity" if security is not None and security.get("type") == "s390-pv" else None
    return {
        "name": _text(root, "name"),
        "type": root.get("type"),
        "architecture": None if os_type is None else os_type.get("arch"),
        "machine": None if os_type is None else os_type.get("machine"),
        "protection_permitted_by": style or (f"iommu on {len(drivers)} devices" if drivers else None),
        "kernel": _text(root, "os/kernel"),
    }


def _domain_capabilities(_: etree._Element, data: bytes) -> dict[str, Value]:
    found = parse_domain_capabilities(data)
    return {
        "emulator": found.emulator,
        "type": found.virt_type,
        "architecture": found.arch,
        "machine": found.machine,
        "s390_pv": found.s390_pv,
        "launch_security_types": found.security_types,
        "host_model": found.host_model,
        "unpack": found.unpack,
    }


def _capabilities(root: etree._Element, _: bytes) -> dict[str, Value]:
    return {
        "host_architecture": _text(root, "host/cpu/arch"),
        "guest_architectures": tuple(str(arch.get("name")) for arch in root.findall("guest/arch")[:64]),
        "kvm_for_s390x": root.find("guest/arch[@name='s390x']/domain[@type='kvm']") is not None,
    }


def _cache(_: etree._Element, data: bytes) -> dict[str, Value]:
    entry = parse_cached_emulator("", data)
    return {
        "emulator": entry.emulator,
        "architecture": entry.arch,
        "made_under_kernel": entry.kernel,
        "secure_guest_host": entry.secure_guest,
        "unpack": entry.unpack,
    }


_Reader = Callable[["etree._Element", bytes], dict[str, Value]]
_KINDS: dict[str, tuple[str, str, _Reader, tuple[str, ...]]] = {
    "domain": (
        "domain-xml",
        "libvirt domain",
        _domain,
        ("zseal domain lint {file}", "zseal domain run {file} --machine DIR"),
    ),
    "domainCapabilities": (
        "domain-capabilities",
        "libvirt's domain capabilities (virsh domcapabilities)",
        _domain_capabilities,
        ("zseal host check",),
    ),
    "capabilities": ("capabilities", "libvirt's host capabilities (virsh capabilities)", _capabilities, ()),
    "qemuCaps": (
        "capabilities-cache",
        "libvirt's cached description of a QEMU",
        _cache,
        ("zseal host check", "zseal host refresh-libvirt-cache --dry-run"),
    ),
}


class LibvirtXml(Recogniser):
    """Any XML; libvirt's own documents by their root element."""

    def recognise(self, sample: Sample) -> Description | None:
        """Find the first element, then parse the documents that are worth it."""
        match = _FIRST_ELEMENT.match(sample.head)
        if match is None:
            return None
        name = match[1].decode()
        known = _KINDS.get(name)
        if known is None:
            return Description("xml", f"XML document, root element {name}", {"size": sample.size})
        kind, title, read, steps = known
        fields: dict[str, Value] = {"size": sample.size}
        problems: tuple[str, ...] = ()
        data = sample.read(0, MAX_XML_BYTES + 1)
        try:
            fields |= read(parse_xml(data, title), data)
        except FormatError as error:
            problems = (error.message,)
            steps = ("zseal domain fix {file}",) if name == "domain" else ()
        return Description(kind, title, fields, problems, tuple(map(sample.command, steps)))


# parameters that identify a line of words as kernel parameters
_PARAMETERS = frozenset(("root", "console", "swiotlb", "init", "rd.lvm.lv", "panic", "ip", "crashkernel", "prot_virt"))
_WORDS = frozenset(("quiet", "ro", "rw"))
_MAX_PARAMETERS = 64 << 10


class ParameterFile(Recogniser):
    """A file with kernel parameters."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check for a short text of one line with a parameter that every kernel knows."""
        if not 0 < sample.size <= _MAX_PARAMETERS:
            return None
        data = sample.whole or b""
        line = data.rstrip(b"\0\n\r ")
        if any((byte < 32 and byte != 9) or byte > 126 for byte in line):
            return None
        parameters = split_command_line(line.decode("ascii"))
        if not any(p.name in _PARAMETERS if p.value is not None else p.name in _WORDS for p in parameters):
            return None
        problems = []
        values = {p.name: p.value for p in parameters}
        if "prot_virt" in values:
            problems.append("prot_virt= belongs to the host's kernel, it has no effect in a guest")
        return Description(
            "kernel-parameters",
            "kernel parameters",
            {"size": sample.size, "parameters": len(parameters), "swiotlb": values.get("swiotlb")},
            tuple(problems),
            (sample.command("zseal image create -i KERNEL -r RAMDISK -p {file} -k DOCUMENT -o IMAGE"),),
        )


RECOGNISERS: tuple[Recogniser, ...] = (LibvirtXml(), ParameterFile())

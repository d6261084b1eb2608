"""Facts about the host a domain is meant for: from domain capabilities, a captured file tree, or a connection."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from zseal.arch.facilities import Facility
from zseal.domain.versions import Version
from zseal.errors import FormatError
from zseal.files import read_limited
from zseal.libvirt.capabilities import MAX_XML_BYTES, DomainCapabilities, parse_domain_capabilities
from zseal.libvirt.fetch import FetchedDomain
from zseal.readiness.facts import UV, find_version, gather
from zseal.readiness.source import CapturedHost, HostSource, LiveHost


@dataclasses.dataclass(frozen=True)
class TargetHost:
    """The facts that rules use; None means "unknown", never "no"."""

    capabilities: DomainCapabilities | None = None
    architecture: str | None = None
    facility: bool | None = None
    uv_directory: bool | None = None
    firmware_masked: bool = False
    prot_virt_host: bool | None = None
    command_line: str | None = None
    max_cpus: int | None = None
    max_address: int | None = None
    libvirt: Version | None = None
    qemu: Version | None = None
    passthrough_networks: frozenset[str] = frozenset()


def _number(text: str | None, base: int) -> int | None:
    try:
        return int((text or "").strip()[:20], base)
    except ValueError:
        return None


def _version(text: str | None) -> Version | None:
    version = find_version(text or "")
    return (version.major, version.minor, version.patch) if version else None


def from_capabilities(data: bytes) -> TargetHost:
    """The facts in a ``virsh domcapabilities`` document; raises FormatError if it is not one."""
    return TargetHost(capabilities=parse_domain_capabilities(data))


def from_capabilities_file(path: Path) -> TargetHost:
    """As :func:`from_capabilities`, for a file; raises InputError if it cannot be read."""
    return from_capabilities(read_limited(path, MAX_XML_BYTES, "domain capabilities document"))


def from_host(root: Path | None) -> TargetHost:
    """The facts of this computer, or of the captured tree ``root`` (see ``zseal host capture``)."""
    source: HostSource = LiveHost() if root is None else CapturedHost(root)
    facts = gather(source)
    facilities = facts.cpu.facilities if facts.cpu is not None else None
    return TargetHost(
        capabilities=facts.domain_capabilities,
        architecture=facts.architecture,
        facility=None if facilities is None else Facility.ULTRAVISOR_CALL in facilities,
        uv_directory=facts.uv_directory,
        firmware_masked=facts.firmware_masked,
        prot_virt_host=facts.prot_virt_host,
        command_line=facts.command_line,
        max_cpus=_number(source.text(f"{UV}/query/max_cpus"), 10),
        max_address=_number(source.text(f"{UV}/query/max_address"), 16),
        libvirt=_version(facts.libvirt.stdout if facts.libvirt and facts.libvirt.ok else None),
        qemu=_version(facts.qemu.stdout if facts.qemu and facts.qemu.ok else None),
    )


def from_libvirt(fetched: FetchedDomain) -> TargetHost:
    """The facts of the host that a domain was fetched from; capabilities that cannot be read stay unknown."""
    facts = TargetHost()
    if fetched.capabilities is not None:
        with contextlib.suppress(FormatError):
            facts = from_capabilities(fetched.capabilities)
    return dataclasses.replace(
        facts,
        passthrough_networks=fetched.passthrough_networks,
        libvirt=fetched.libvirt,
        qemu=fetched.qemu,
    )


def merge(first: TargetHost | None, second: TargetHost) -> TargetHost:
    """Combine both; what ``second`` knows wins."""
    if first is None:
        return second
    known = {
        field.name: value
        for field in dataclasses.fields(TargetHost)
        if (value := getattr(second, field.name)) not in (None, False, frozenset())
    }
    return dataclasses.replace(first, **known)

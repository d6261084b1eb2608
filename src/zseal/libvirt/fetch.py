"""Ask libvirt for a domain and for what the host offers."""

from __future__ import annotations

import contextlib
import dataclasses
from types import ModuleType

from zseal.errors import InputError
from zseal.libvirt.module import libvirt_module
from zseal.logs import logger

_LOG = logger(__name__)


@dataclasses.dataclass(frozen=True)
class FetchedDomain:
    """A domain's XML (inactive, as it would start next) and libvirt's description of its host.

    ``capabilities`` is the host's domain-capabilities document, None if libvirt offers none for KVM on s390x.
    ``libvirt`` and ``qemu`` are versions as (major, minor, release).
    """

    xml: bytes
    capabilities: bytes | None
    passthrough_networks: frozenset[str]
    libvirt: tuple[int, ...] | None
    qemu: tuple[int, ...] | None


def _version(number: int) -> tuple[int, ...]:
    return number // 1_000_000, number // 1000 % 1000, number % 1000


def fetch(uri: str, name: str) -> FetchedDomain:
    """Fetch the domain ``name`` (or UUID) from the daemon at ``uri``; read-only.

    Raises MissingDependencyError without libvirt-python, InputError where libvirt refuses.
    """
    libvirt = libvirt_module()
    try:
        connection = libvirt.openReadOnly(uri)
    except libvirt.libvirtError as error:
        raise InputError(f"libvirt cannot connect: {error}", where=uri) from error
    _LOG.info("reading the domain %s from libvirt at %s", name, uri)
    try:
        try:
            domain = connection.lookupByName(name)
        except libvirt.libvirtError:
            try:
                domain = connection.lookupByUUIDString(name)
            except libvirt.libvirtError as error:
                raise InputError(f"no domain {name!r}", where=uri, hint="virsh list --all lists all domains") from error
        try:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        except libvirt.libvirtError as error:
            raise InputError(f"libvirt does not give the domain's XML: {error}", where=uri) from error
        versions = _versions(libvirt, connection, uri)
        return FetchedDomain(
            xml.encode(),
            _capabilities(libvirt, connection),
            _passthrough_networks(libvirt, connection),
            versions.get("libvirt"),
            versions.get("qemu"),
        )
    finally:
        connection.close()


def _capabilities(libvirt: ModuleType, connection: object) -> bytes | None:
    try:
        text = connection.getDomainCapabilities(None, "s390x", "s390-ccw-virtio", "kvm", 0)  # type: ignore[attr-defined]
    except libvirt.libvirtError:
        return None  # without KVM the call fails, which does not concern the domain
    return str(text).encode()


def _passthrough_networks(libvirt: ModuleType, connection: object) -> frozenset[str]:
    names = set()
    try:
        for network in connection.listAllNetworks():  # type: ignore[attr-defined]
            if "<forward mode='hostdev'" in network.XMLDesc():
                names.add(network.name())
    except libvirt.libvirtError:
        pass  # drivers without networks
    return frozenset(names)


def _versions(libvirt: ModuleType, connection: object, uri: str) -> dict[str, tuple[int, ...]]:
    versions: dict[str, tuple[int, ...]] = {}
    if uri.startswith("qemu"):
        for name, ask in (("libvirt", connection.getLibVersion), ("qemu", connection.getVersion)):  # type: ignore[attr-defined]
            # the version of QEMU is that of the host's own architecture, which may not be installed
            with contextlib.suppress(libvirt.libvirtError):
                versions[name] = _version(ask())
    return versions

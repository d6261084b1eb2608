"""Ask libvirt for a domain and for what the host offers (the optional package libvirt-python)."""

from __future__ import annotations

import contextlib
import dataclasses
from types import ModuleType

from zseal.domain.facts import TargetHost, from_capabilities
from zseal.domain.versions import Version
from zseal.errors import FormatError, InputError, MissingDependencyError

HINT = "install it with `pip install zseal[libvirt]` or your distribution's python3-libvirt"


def libvirt_module() -> ModuleType:
    """Return libvirt's Python module; raises MissingDependencyError where it is not installed."""
    try:
        import libvirt
    except ImportError as error:
        raise MissingDependencyError("this needs the Python package libvirt-python", hint=HINT) from error
    module: ModuleType = libvirt
    # libvirt prints every error to stderr itself unless a handler takes it; ours says it once
    module.registerErrorHandler(lambda _context, _error: None, None)
    return module


@dataclasses.dataclass(frozen=True)
class Fetched:
    """A domain's XML (inactive, as it would start next) and the facts of its host."""

    xml: bytes
    host: TargetHost


def _version(number: int) -> Version:
    return number // 1_000_000, number // 1000 % 1000, number % 1000


def fetch(uri: str, name: str) -> Fetched:
    """Fetch the domain ``name`` (or UUID) from the daemon at ``uri``; read-only.

    Raises MissingDependencyError without libvirt-python, InputError where libvirt refuses.
    """
    libvirt = libvirt_module()
    try:
        connection = libvirt.openReadOnly(uri)
    except libvirt.libvirtError as error:
        raise InputError(f"libvirt can't connect: {error}", where=uri) from error
    try:
        try:
            domain = connection.lookupByName(name)
        except libvirt.libvirtError:
            try:
                domain = connection.lookupByUUIDString(name)
            except libvirt.libvirtError as error:
                raise InputError(f"no domain {name!r}", where=uri, hint="virsh list --all names them") from error
        try:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        except libvirt.libvirtError as error:
            raise InputError(f"libvirt does not give the domain's XML: {error}", where=uri) from error
        return Fetched(xml.encode(), _host(libvirt, connection, uri))
    finally:
        connection.close()


def _host(libvirt: ModuleType, connection: object, uri: str) -> TargetHost:
    """What the connection tells of its host; what it refuses stays unknown."""
    facts = TargetHost()
    try:
        # without KVM the call fails, which tells nothing about the domain
        capabilities = connection.getDomainCapabilities(None, "s390x", "s390-ccw-virtio", "kvm", 0)  # type: ignore[attr-defined]
        facts = from_capabilities(capabilities.encode())
    except (libvirt.libvirtError, FormatError):
        pass
    passthrough = set()
    try:
        for network in connection.listAllNetworks():  # type: ignore[attr-defined]
            if "<forward mode='hostdev'" in network.XMLDesc():
                passthrough.add(network.name())
    except libvirt.libvirtError:
        pass  # drivers without networks
    versions: dict[str, Version] = {}
    if uri.startswith("qemu"):
        for name, ask in (("libvirt", connection.getLibVersion), ("qemu", connection.getVersion)):  # type: ignore[attr-defined]
            # the version of QEMU is that of the host's own architecture, which may not be installed
            with contextlib.suppress(libvirt.libvirtError):
                versions[name] = _version(ask())
    return dataclasses.replace(
        facts,
        passthrough_networks=frozenset(passthrough),
        libvirt=versions.get("libvirt"),
        qemu=versions.get("qemu"),
    )

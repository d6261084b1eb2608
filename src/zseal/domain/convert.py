"""Convert a domain between the two styles with edits that keep formatting, comments and unknown elements.

Both directions also apply the rules' repairs that the style needs apart from the devices: no balloon, a CPU model with
unpack. Converting twice gives the same text.
"""

from __future__ import annotations

import dataclasses

from zseal.domain.devices import ExplicitDevice
from zseal.domain.document import Document, DomainSource, Element, encode, load_document
from zseal.domain.edits import Change, apply, remove_element
from zseal.domain.fix import fix_document
from zseal.domain.lint import LintSettings
from zseal.domain.model import Domain, Style
from zseal.domain.rules.coverage import cover, write_out
from zseal.domain.rules.interface import Context
from zseal.domain.rules.memory import block_after
from zseal.domain.rules.protection import add_launch_security, drop_iommu
from zseal.domain.versions import LAUNCH_SECURITY_LIBVIRT, Target, show
from zseal.errors import InputError

MAX_ROUNDS = 20

# What a conversion needs apart from the protection itself: balloon, CPU model, repairs of failed protection.
_NEEDED = frozenset(
    {"PV102", "PV103", "PV104", "PV106", "PV111", "PV219", "PV220", "PV221", "PV301", "PV302", "PV401", "PV402"}
)


@dataclasses.dataclass(frozen=True)
class Converted:
    """The converted document, and notes for its user."""

    document: Document
    notes: tuple[str, ...]

    @property
    def xml(self) -> bytes:
        """The converted XML in the encoding of the original."""
        return encode(self.document.data, self.document.encoding)


def convert_domain(source: DomainSource, style: Style, target: Target | None = None) -> Converted:
    """Convert the domain XML in ``source``, a path or the content, as :func:`convert_document` does."""
    return convert_document(load_document(source), style, target)


def convert_document(document: Document, style: Style, target: Target | None = None) -> Converted:
    """Convert to ``style``, LAUNCH_SECURITY or IOMMU.

    Raises InputError if the style cannot express the domain or the target's libvirt is too old for it.
    """
    target = target or Target()
    if document.root.tag != "domain":
        raise InputError(f"expected a libvirt domain, found {document.root.name}", where=document.name)
    _refuse(Domain(document), style, target, document.name)
    # misspelt and misplaced protection is repaired before it is converted
    document, _ = fix_document(document, LintSettings(target=target, select=_NEEDED, local_files=False))
    notes = []
    for _ in range(MAX_ROUNDS):
        ctx = Context(document, Domain(document), target)
        changes = _to_launch_security(ctx) if style is Style.LAUNCH_SECURITY else _to_iommu(ctx)
        data, applied = apply(document.data, changes)
        if not applied:
            break
        document = Document(document.name, data, document.encoding)
    else:
        raise InputError("the conversion does not end", where=document.name, hint="report this domain")
    if style is Style.IOMMU:
        notes.append("libvirt no longer checks the host: the domain can be defined and started on any host")
        notes.append("every hot-plugged virtio device needs its own <driver iommu='on'/>")
    else:
        notes.append(f"libvirt {show(LAUNCH_SECURITY_LIBVIRT)} and QEMU 6.0 or newer are needed")
    return Converted(document, tuple(notes))


def _refuse(domain: Domain, style: Style, target: Target, where: str) -> None:
    if style is Style.LAUNCH_SECURITY:
        if not target.libvirt_has(LAUNCH_SECURITY_LIBVIRT):
            needed = show(LAUNCH_SECURITY_LIBVIRT)
            raise InputError(f"launchSecurity needs libvirt {needed}", where=where, hint="keep the iommu style")
        return
    for device in domain.devices.children:
        scsi_host = device.tag == "hostdev" and device.get("type") == "scsi_host"
        virtio_memory = device.tag == "memory" and device.get("model") in ("virtio-mem", "virtio-pmem")
        if scsi_host or virtio_memory:
            name = "a scsi_host device" if scsi_host else f"{device.get('model')} memory"
            line = domain.document.position(device.start).line
            hint = "keep launchSecurity" if scsi_host else "remove it, protected guests cannot use it"
            raise InputError(f"{name} cannot be covered in the iommu style", where=f"{where}:{line}", hint=hint)
    for virtio in domain.virtio:
        if not target.libvirt_has(virtio.kind.iommu_since):
            needed = show(virtio.kind.iommu_since)
            raise InputError(f"iommu='on' for {virtio} needs libvirt {needed}", where=where)


def _to_launch_security(ctx: Context) -> list[Change]:
    changes = [drop_iommu(driver) for driver in _iommu_drivers(ctx)]
    if ctx.domain.style is not Style.LAUNCH_SECURITY:
        changes.append(add_launch_security(ctx))
    return changes


def _iommu_drivers(ctx: Context) -> list[Element]:
    devices = ctx.domain.devices.children
    return [driver for device in devices for driver in device.all("driver") if "iommu" in driver.attributes]


def _to_iommu(ctx: Context) -> list[Change]:
    changes = [remove_element(element) for element in ctx.domain.launch_security]
    changes += [cover(ctx.document, device) for device in ctx.domain.virtio if _to_cover(device)]
    changes += write_out(ctx.document, ctx.domain).values()
    backing = ctx.root.find("memoryBacking")
    if backing is None:
        fragment = "<memoryBacking>\n  <nosharepages/>\n</memoryBacking>"
        changes.append(ctx.insert(ctx.root, fragment, after=block_after(ctx), first=block_after(ctx) is None))
    elif backing.find("nosharepages") is None:
        changes.append(ctx.insert(backing, "<nosharepages/>"))
    return changes


def _to_cover(device: ExplicitDevice) -> bool:
    return not device.covered and device.element.tag != "memballoon"

"""What has to change in a domain for it to run here: no KVM, no s390-pv-guest object, perhaps no network driver.

The guest's view stays what it would be on a real host: launchSecurity becomes the iommu attributes that QEMU would add
by itself there, and what is wrong in the domain stays wrong.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from zseal.domain.document import QEMU_NAMESPACE, Document, Element
from zseal.domain.edits import (
    Change,
    apply,
    insert_child,
    remove_element,
    remove_elements,
    replace_element,
    set_attributes,
    set_text,
)
from zseal.domain.model import Domain, Style
from zseal.domain.rules.coverage import cover, write_out
from zseal.engine.machine import fixed_memory_size
from zseal.engine.qemu.commandline import wrong_features
from zseal.engine.qemu.process import find_program, program_version
from zseal.errors import InputError

_NOT_FOR_USER_NETWORK = ("source", "target", "virtualport", "bandwidth", "filterref", "backend", "vlan", "port")


@dataclasses.dataclass(frozen=True)
class Translated:
    """The domain as it is started, and one line for each thing that was changed."""

    document: Document
    changes: tuple[str, ...]
    image: Path | None
    """The sealed image; None where the domain boots from its disk."""
    memory: int
    cpus: int

    @property
    def name(self) -> str:
        """The name of the document, for messages."""
        return self.document.name

    @property
    def ends_at_reset(self) -> bool:
        """Whether libvirt destroys the domain when its guest reboots."""
        on_reboot = self.document.root.find("on_reboot")
        return on_reboot is not None and on_reboot.value == "destroy"

    def xml(self, arguments: Sequence[str], *, security_models: Sequence[str] | None) -> bytes:
        """Return the XML with more ``arguments`` for QEMU, which runs as this process's user if models are given."""
        document = self.document
        if security_models is not None:
            document = run_as(document, os.getuid(), os.getgid(), security_models)
        return add_arguments(document, arguments).data


class _Translation:
    """The document as it is changed step by step."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.changes: list[str] = []

    @property
    def root(self) -> Element:
        return self.document.root

    def edit(self, changes: Sequence[Change], note: str = "") -> None:
        """Apply changes that do not touch each other, and note what they mean."""
        data, applied = apply(self.document.data, changes)
        if applied:
            self.document = Document(self.document.name, data, self.document.encoding)
            if note:
                self.changes.append(note)

    def insert(self, parent: Element, fragment: str, *, after: Element | None = None) -> Change:
        return insert_child(self.document, parent, fragment, after=after)


def translate(document: Document, *, image: Path | None, user_network: bool) -> Translated:
    """Translate a domain that lint found no error in (or that is to fail as it would on a real host).

    ``image`` takes the place of the kernel that the domain names. With ``user_network`` interfaces get QEMU's own
    network, because the libvirt that starts it has no others. Raises InputError where the domain cannot run here.
    """
    _refuse(Domain(document))
    translation = _Translation(document)
    kernel = _kernel(translation, image)
    memory = _memory(translation)
    cpus = Domain(translation.document).vcpus
    if cpus is None:
        raise InputError("the vcpu element holds no number", where=document.name)
    steps: list[Callable[[_Translation], None]] = [_style, _machine, _processor, _emulator, _unavailable]
    if user_network:
        steps.append(_network)
    for step in steps:
        step(translation)
    return Translated(translation.document, tuple(translation.changes), kernel, memory, cpus)


def _refuse(domain: Domain) -> None:
    where = domain.document.name
    if domain.root.tag != "domain":
        raise InputError(f"expected a libvirt domain, found {domain.root.name}", where=where)
    for device in domain.devices.all("hostdev"):
        line = domain.document.position(device.start).line
        message = f"a passed-through {device.get('type')} device cannot be emulated"
        raise InputError(message, where=f"{where}:{line}", hint="remove it to run the domain here")


def _kernel(translation: _Translation, image: Path | None) -> Path | None:
    """Make the domain boot the image directly; return its path, None for a domain that boots from its disk."""
    domain = Domain(translation.document)
    if image is None:
        if domain.kernel is None or not domain.kernel.value:
            return None
        path = Path(domain.kernel.value)
        if not path.is_file():
            raise InputError("the image that the domain names does not exist", where=str(path), hint="give `image`")
        return path
    path = image.resolve()
    os_element = domain.os
    if os_element is None:
        raise InputError("the domain has no os element", where=translation.document.name)
    beside = list(os_element.all("initrd", "cmdline", "boot"))
    if domain.kernel is not None:
        changes = [set_text(domain.kernel, str(path)), remove_elements(beside)]
    else:
        changes = [translation.insert(os_element, f"<kernel>{escape(str(path))}</kernel>"), remove_elements(beside)]
    before = domain.kernel.value if domain.kernel is not None else "the disk"
    for change in changes:  # one after the other: they may touch each other
        if change:
            again = Domain(translation.document)
            if change is changes[1] and again.os is not None:
                change = remove_elements(list(again.os.all("initrd", "cmdline", "boot")))
            translation.edit([change])
    translation.changes.append(f"boot {path} instead of {before}")
    return path


def _memory(translation: _Translation) -> int:
    size = Domain(translation.document).memory
    if not size:
        raise InputError("the domain states no memory", where=translation.document.name)
    wanted = fixed_memory_size(size)
    if wanted != size:
        for tag in ("memory", "currentMemory"):
            element = translation.root.find(tag)
            if element is not None:
                fragment = f"<{tag} unit='MiB'>{wanted >> 20}</{tag}>"
                translation.edit([replace_element(translation.document, element, fragment)])
        translation.changes.append(f"memory of {wanted >> 20} MiB: QEMU wants whole storage increments")
    return wanted


def _style(translation: _Translation) -> None:
    domain = Domain(translation.document)
    if domain.style is not Style.LAUNCH_SECURITY:
        return
    for _ in range(len(domain.virtio) + len(domain.implicit) + 1):
        domain = Domain(translation.document)
        # an explicit off stays: it would win over QEMU's default on a real host too
        changes = [cover(translation.document, device) for device in domain.virtio if not device.iommu]
        changes += write_out(translation.document, domain).values()
        if not changes:
            break
        translation.edit(changes)
    translation.edit(
        [remove_element(element) for element in Domain(translation.document).launch_security],
        "launchSecurity s390-pv becomes iommu='on' on every virtio device: what QEMU does by itself with KVM",
    )


def _machine(translation: _Translation) -> None:
    if translation.root.get("type") != "qemu":
        translation.edit(
            [set_attributes(translation.root, type="qemu")], "domain type qemu instead of kvm: the CPUs are emulated"
        )


def _processor(translation: _Translation) -> None:
    maximum = _maximum_cpu()
    cpu = translation.root.find("cpu")
    if cpu is None:
        anchor = translation.root.find("os")
        translation.edit([translation.insert(translation.root, maximum, after=anchor)])
        return
    model = cpu.find("model")
    name = model.value if model is not None else cpu.get("mode", "the default")
    translation.edit(
        [replace_element(translation.document, cpu, maximum)],
        f"CPU model maximum instead of {name}: zseal adds the facilities 158 and 161 itself",
    )


def _maximum_cpu() -> str:
    """Return the element for all that this computer's QEMU can do right."""
    off = wrong_features(program_version(find_program()))
    features = "".join(f"<feature policy='disable' name='{name}'/>" for name in off)
    return f"<cpu mode='maximum'>{features}</cpu>" if features else "<cpu mode='maximum'/>"


def _emulator(translation: _Translation) -> None:
    devices = translation.root.find("devices")
    emulator = devices.find("emulator") if devices is not None else None
    if emulator is not None and shutil.which(emulator.value) is None:
        translation.edit([remove_element(emulator)], f"the emulator {emulator.value} is not here: libvirt's choice")


def _unavailable(translation: _Translation) -> None:
    for device in list(Domain(translation.document).devices.all("vsock")):
        if not os.access("/dev/vhost-vsock", os.R_OK | os.W_OK):
            translation.edit([remove_element(device)], "the vsock device is left out: this computer has no vhost-vsock")


def _network(translation: _Translation) -> None:
    count = len(list(Domain(translation.document).devices.all("interface")))
    for index in range(count):
        interface = list(Domain(translation.document).devices.all("interface"))[index]
        kind = interface.get("type")
        if kind == "user":
            continue
        translation.edit([remove_elements(list(interface.all(*_NOT_FOR_USER_NETWORK)))])
        interface = list(Domain(translation.document).devices.all("interface"))[index]
        translation.edit(
            [set_attributes(interface, type="user")], f"a network of QEMU's own instead of type {kind!r} (user mode)"
        )


def run_as(document: Document, user: int, group: int, models: Sequence[str]) -> Document:
    """Return the domain with QEMU running as ``user`` and ``group``, unconfined by the other security ``models``.

    QEMU has to reach the memory and sockets of this process, which belong to its user alone. A daemon without the
    model ``dac`` (a session's) runs QEMU as its own user anyway.
    """
    # root reads files whosever they are; for others libvirt hands over its own files, and for the run the disks
    relabel = "yes" if user else "no"
    dac = f"<seclabel type='static' model='dac' relabel='{relabel}'>\n  <label>+{user}:+{group}</label>\n</seclabel>"
    none = "<seclabel type='none' model='{}'/>"
    labels = [dac if model == "dac" else none.format(escape(model)) for model in models if model != "none"]
    change = remove_elements(list(document.root.all("seclabel")))
    document = Document(document.name, apply(document.data, [change])[0], document.encoding)
    if not labels:
        return document
    plain = [child for child in document.root.children if ":" not in child.name]
    change = insert_child(document, document.root, "\n".join(labels), after=plain[-1] if plain else None)
    return Document(document.name, apply(document.data, [change])[0], document.encoding)


def add_arguments(document: Document, arguments: Sequence[str]) -> Document:
    """Return the domain with ``arguments`` for QEMU in its ``qemu:commandline``."""
    root = document.root
    prefix = "zseal-qemu"
    lines = "\n".join(f"  <{prefix}:arg value={quoteattr(argument)}/>" for argument in arguments)
    existing = root.find(f"{{{QEMU_NAMESPACE}}}commandline")
    if existing is not None:
        prefix = existing.name.partition(":")[0]
        fragment = "\n".join(f"<{prefix}:arg value={quoteattr(argument)}/>" for argument in arguments)
        changes = [insert_child(document, existing, fragment)]
    else:
        changes = [
            set_attributes(root, **{f"xmlns:{prefix}": QEMU_NAMESPACE}),
            insert_child(document, root, f"<{prefix}:commandline>\n{lines}\n</{prefix}:commandline>"),
        ]
    return Document(document.name, apply(document.data, changes)[0], document.encoding)

"""Rules about the document and the machine it asks for: PV001 to PV007."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.edits import insert_child, set_attributes
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Input, Safety, Severity, Table, nothing
from zseal.domain.s390x import MACHINE, is_distribution_machine, machine_release
from zseal.messages import bootloaders

TABLE = Table(__name__)

OLDEST_MACHINE = (5, 2)

TABLE.rule(
    "PV001", Severity.ERROR, "the XML is not well-formed",
    why="A document with an element left open or an attribute without quotes is not XML. The sample domains on "
    "libvirt's own page about protected virtualization leave the disk's <driver …> open.",
    effect="virsh define, virsh create and virt-xml-validate refuse the file with a tag mismatch, often several "
    "lines later.",
    remedy="Close the element or repair the mistake at the reported place.",
    safety=Safety.SAFE, caught_by=CaughtBy.SCHEMA | CaughtBy.LIBVIRT,
    example="<disk type='file' device='disk'>\n  <driver name='qemu' type='qcow2'>\n  <source file='/images/b.qcow2'/>"
    "\n  <target dev='vdb' bus='virtio'/>\n</disk>",
)(nothing)  # fmt: skip


@TABLE.rule(
    "PV002", Severity.ERROR, "the root element is not a domain",
    why="Only a libvirt <domain> describes a guest; networks, pools, snapshots and saved states are other documents.",
    effect="libvirt refuses to define it.",
    remedy="Use the output of virsh dumpxml --inactive, or the file in /etc/libvirt/qemu.",
    caught_by=CaughtBy.SCHEMA | CaughtBy.LIBVIRT, example="<network/>",
)  # fmt: skip
def _root(ctx: Context) -> Iterator[Hit]:
    if ctx.root.tag != "domain":
        yield Hit(ctx.root, f"expected a libvirt domain, found {ctx.root.name}")


TABLE.rule(
    "PV003", Severity.WARNING, "libvirt's schema does not accept the document",
    why="libvirt drops unknown elements and attributes without a message, and what they ask for is lost. Parts that "
    "libvirt got later than the installed schema are judged by the target, if there is one, and not by the schema.",
    effect="libvirt may define the domain, but without the misplaced, misspelt or too new part.",
    remedy="Compare the element with libvirt's documentation of the domain format.",
    caught_by=CaughtBy.SCHEMA, example="<domain type='kvm'>\n  <nmae>guest</nmae>\n</domain>",
    needs=[Input.SCHEMA],
)(nothing)  # fmt: skip


@TABLE.rule(
    "PV004", Severity.ERROR, "the domain type is not kvm",
    why="Protected guests run under the ultravisor, and only KVM uses it. QEMU's own emulation does not have the "
    "unpack facility.",
    effect=f"The image's bootloader stops with '{bootloaders.NO_UNPACK.text}'.",
    remedy="Write type='kvm' in the domain element.",
    safety=Safety.SAFE, ports=True, example="<domain type='qemu'/>",
)  # fmt: skip
def _type(ctx: Context) -> Iterator[Hit]:
    if ctx.root.get("type") != "kvm":
        found = ctx.root.get("type")
        is_now = f"it is {found!r}" if found else "it is not stated"
        yield Hit(
            ctx.root, f"protected guests need the domain type kvm, but {is_now}", set_attributes(ctx.root, type="kvm")
        )


@TABLE.rule(
    "PV005", Severity.ERROR, "the architecture is not s390x",
    why="Only IBM Z and LinuxONE have Secure Execution. Without arch= libvirt uses the host's architecture.",
    effect="libvirt looks for another emulator, or starts a guest that cannot run the image.",
    remedy="Write arch='s390x' in the os type element.",
    safety=Safety.SAFE, ports=True, example="<os>\n  <type arch='x86_64'>hvm</type>\n</os>",
)  # fmt: skip
def _architecture(ctx: Context) -> Iterator[Hit]:
    kind = ctx.root.find("os", "type")
    if kind is None:
        parent = ctx.domain.os
        text = f"<type arch='s390x' machine='{MACHINE}'>hvm</type>"
        change = (
            ctx.insert(parent, text, first=True)
            if parent is not None
            else insert_child(ctx.document, ctx.root, f"<os>\n  {text}\n</os>")
        )
        yield Hit(parent or ctx.root, "the os type is missing; the architecture must be s390x", change)
    elif kind.get("arch") != "s390x":
        found = kind.get("arch")
        message = f"the architecture must be s390x, it is {found}" if found else "state the architecture, s390x"
        yield Hit(kind, message, set_attributes(kind, arch="s390x"), None if found else Severity.WARNING)


@TABLE.rule(
    "PV006", Severity.ERROR, "the machine type is not s390-ccw-virtio",
    why="QEMU has only s390-ccw-virtio and its versions for s390x; other names belong to other architectures.",
    effect="libvirt refuses the domain for this emulator.",
    remedy=f"Write machine='{MACHINE}' in the os type element.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<os>\n  <type arch='s390x' machine='q35'>hvm</type>\n</os>",
)  # fmt: skip
def _machine(ctx: Context) -> Iterator[Hit]:
    kind = ctx.root.find("os", "type")
    machine = kind.get("machine") if kind is not None else ""
    known = machine == MACHINE or machine_release(machine) is not None or is_distribution_machine(machine)
    if kind is not None and machine and not known:
        change = set_attributes(kind, machine=MACHINE)
        yield Hit(kind, f"the machine type must be {MACHINE}, it is {machine}", change)


@TABLE.rule(
    "PV007", Severity.ADVICE, "an old machine type",
    why="A versioned machine type keeps the device defaults of that QEMU release.",
    effect="The guest keeps defaults from the time before QEMU supported protected guests well.",
    remedy=f"Use machine='{MACHINE}', or version {OLDEST_MACHINE[0]}.{OLDEST_MACHINE[1]} or newer.",
    safety=Safety.ASK, example=f"<os>\n  <type arch='s390x' machine='{MACHINE}-3.0'>hvm</type>\n</os>",
)  # fmt: skip
def _old_machine(ctx: Context) -> Iterator[Hit]:
    kind = ctx.root.find("os", "type")
    release = machine_release(kind.get("machine")) if kind is not None else None
    if kind is not None and release is not None and release < OLDEST_MACHINE:
        change = set_attributes(kind, machine=MACHINE)
        yield Hit(kind, f"the machine type {kind.get('machine')} keeps old defaults", change)

"""Rules about events in the guest's life, and about what bypasses these rules: PV701 to PV706."""

from __future__ import annotations

from collections.abc import Iterator

from zseal.domain.document import QEMU_NAMESPACE, Element
from zseal.domain.edits import Change, remove_element, set_attributes, set_text
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Safety, Severity, Table

TABLE = Table(__name__)

_NO_DUMP = (
    "The host sees the guest's memory encrypted. A dump that can be decrypted needs z16 or newer, an image built with "
    "dumping enabled, and virsh dump --memory-only."
)


@TABLE.rule(
    "PV701", Severity.WARNING, "the watchdog dumps the guest",
    why=_NO_DUMP, effect="The dump fails or contains only encrypted pages.", remedy="Write action='reset'.",
    safety=Safety.ASK, example="<watchdog model='diag288' action='dump'/>",
)  # fmt: skip
def _watchdog(ctx: Context) -> Iterator[Hit]:
    for device in ctx.domain.devices.all("watchdog"):
        if device.get("action") == "dump":
            change = set_attributes(device, action="reset")
            yield Hit(device, "a dump by the host's watchdog is not usable", change)


@TABLE.rule(
    "PV702", Severity.WARNING, "a core dump when the guest crashes",
    why=_NO_DUMP, effect="The dump fails or contains only encrypted pages.", remedy="Write destroy, or use kdump in "
    "the guest.",
    safety=Safety.ASK, example="<on_crash>coredump-destroy</on_crash>",
)  # fmt: skip
def _on_crash(ctx: Context) -> Iterator[Hit]:
    element = ctx.root.find("on_crash")
    if element is not None and element.value.startswith("coredump"):
        yield Hit(element, f"the dump of {element.value} is not usable", set_text(element, "destroy"))


@TABLE.rule(
    "PV703", Severity.ADVICE, "guest memory in core dumps of QEMU",
    why="QEMU's core dump contains the guest's memory as the host sees it, encrypted.",
    effect="Core dumps are large and useless.",
    remedy="Write dumpCore='off'.",
    safety=Safety.SAFE, example="<memory dumpCore='on' unit='GiB'>4</memory>",
)  # fmt: skip
def _dump_core(ctx: Context) -> Iterator[Hit]:
    memory = ctx.root.find("memory")
    if memory is not None and memory.get("dumpCore") == "on":
        yield Hit(memory, "QEMU's core dump would contain only encrypted pages", set_attributes(memory, dumpCore="off"))


@TABLE.rule(
    "PV704", Severity.WARNING, "async-teardown with memory that is allocated immediately",
    why="With async-teardown the old memory still exists while the guest starts again.",
    effect="A restart needs twice the guest's memory, and the host may run out of memory.",
    remedy="Remove <allocation mode='immediate'/>, or async-teardown.",
    safety=Safety.ASK,
    example="<domain type='kvm'>\n  <memoryBacking>\n    <allocation mode='immediate'/>\n  </memoryBacking>\n"
    "  <features>\n    <async-teardown enabled='yes'/>\n  </features>\n</domain>",
)  # fmt: skip
def _teardown(ctx: Context) -> Iterator[Hit]:
    feature = ctx.root.find("features", "async-teardown")
    allocation = ctx.root.find("memoryBacking", "allocation")
    immediate = allocation is not None and allocation.get("mode") == "immediate"
    if feature is not None and allocation is not None and feature.get("enabled", "yes") == "yes" and immediate:
        change = set_attributes(allocation, mode="ondemand")
        yield Hit(allocation, "with async-teardown the host can run out of memory at a restart", change)


@TABLE.rule(
    "PV705", Severity.ERROR, "settings of ACPI suspend",
    why="suspend-to-mem and suspend-to-disk set what a PC's ACPI offers. s390x does not have ACPI, whether they are "
    "enabled or not, and the host cannot save the memory of a protected guest either.",
    effect="libvirt refuses the domain: 'setting ACPI S3/S4 not supported' (before 9.1: 'ACPI S3').",
    remedy="Remove <pm>.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<pm>\n  <suspend-to-disk enabled='no'/>\n</pm>",
)  # fmt: skip
def _suspend(ctx: Context) -> Iterator[Hit]:
    for pm in ctx.root.all("pm"):
        stated = [child for child in pm.all("suspend-to-mem", "suspend-to-disk") if child.get("enabled")]
        if stated:
            names = " and ".join(child.name for child in stated)
            yield Hit(stated[0], f"s390x does not have ACPI suspend ({names})", remove_element(pm), becomes="removed")


_BYPASSING = ("-object", "-m", "-machine", "-M", "-global", "-cpu", "-accel", "-device", "-set")
_WORDS = ("iommu_platform", "confidential-guest-support", "s390-pv-guest")


@TABLE.rule(
    "PV706", Severity.WARNING, "hand-written QEMU arguments",
    why="Arguments in <qemu:commandline> are passed to QEMU unchanged and can override the rest of the domain.",
    effect="Lint does not check these arguments.",
    remedy="Use libvirt's own elements instead.",
    safety=Safety.NONE,
    example=f"<qemu:commandline xmlns:qemu='{QEMU_NAMESPACE}'>\n  <qemu:arg value='-global'/>\n"
    "  <qemu:arg value='virtio-net-ccw.iommu_platform=off'/>\n</qemu:commandline>",
)  # fmt: skip
def _arguments(ctx: Context) -> Iterator[Hit]:
    for section in ctx.root.all(f"{{{QEMU_NAMESPACE}}}commandline", f"{{{QEMU_NAMESPACE}}}override"):
        if section.tag.endswith("}override"):
            yield Hit(section, "overridden device properties bypass these checks")
            continue
        offending = next((argument for argument in section.children if _bypasses(argument)), None)
        if offending is not None:
            message = f"the QEMU argument {offending.get('value')[:60]!r} bypasses these checks"
            yield Hit(offending, message, Change())


def _bypasses(argument: Element) -> bool:
    value = argument.get("value")
    option = "-" + value.lstrip("-") if value.startswith("-") else value
    return option in _BYPASSING or any(word in value for word in _WORDS)

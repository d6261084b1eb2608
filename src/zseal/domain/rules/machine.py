"""Rules about what the machine of s390x has: PV008 to PV012. The table of what it has is zseal.domain.s390x."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from zseal.domain.document import Element
from zseal.domain.edits import Change, remove_attributes, remove_element, remove_elements, set_attributes
from zseal.domain.rules.interface import CaughtBy, Context, Hit, Safety, Severity, Table
from zseal.domain.s390x import (
    FEATURES,
    FEATURES_SINCE,
    KVM_FEATURES,
    MACHINE,
    TIMERS,
    first_machine,
    is_distribution_machine,
    machine_release,
)
from zseal.domain.versions import show
from zseal.messages.libvirt import NO_MACHINE_TYPE

TABLE = Table(__name__)

REMOVED = "removed"


@TABLE.rule(
    "PV008", Severity.ERROR, "a feature of another machine",
    why="ACPI, Hyper-V, SMM and the like belong to the machines of other architectures, and s390x does not have them.",
    effect="libvirt refuses the domain, or QEMU does when it starts.",
    remedy="Remove the feature.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT, example="<features>\n  <acpi/>\n</features>",
)  # fmt: skip
def _features(ctx: Context) -> Iterator[Hit]:
    features = ctx.root.find("features")
    for element in features.children if features is not None else ():
        if element.tag == "kvm":
            yield from _kvm_features(element)
        elif element.tag == "apic" and element.get("eoi"):
            change = remove_attributes(element, "eoi")
            yield Hit(element, "s390x does not have the attribute eoi of apic", change, becomes=REMOVED)
        elif element.tag in FEATURES and FEATURES[element.tag](element):
            since = FEATURES_SINCE.get(element.tag)
            message = f"s390x does not have the feature {element.tag}"
            severity = None
            if since is not None:
                message += f"; libvirt {show(since)} and newer refuse the domain"
                severity = None if ctx.target.libvirt_has(since) else Severity.WARNING
            yield Hit(element, message, remove_element(element), severity, becomes=REMOVED)


def _kvm_features(kvm: Element) -> Iterator[Hit]:
    wrong = [child for child in kvm.children if child.tag in KVM_FEATURES and KVM_FEATURES[child.tag](child)]
    for child in wrong:
        whole = len(wrong) == len(kvm.children)
        change = remove_element(kvm) if whole else remove_element(child)
        yield Hit(child, f"s390x does not have the feature {child.tag} of kvm", change, becomes=REMOVED)


@TABLE.rule(
    "PV009", Severity.ADVICE, "a machine type of one QEMU release or distribution",
    why="virsh dumpxml writes the machine type with the release of its QEMU. Older releases do not have it, and "
    "names of distributions (such as rhel9.6.0 or noble) exist only in their own QEMU.",
    effect=f"Another QEMU refuses the domain: '{NO_MACHINE_TYPE.text}'.",
    remedy=f"Write machine='{MACHINE}', unless guests migrate between these hosts.",
    safety=Safety.ASK, ports=True,
    example=f"<os>\n  <type arch='s390x' machine='{MACHINE}-noble'>hvm</type>\n</os>",
)  # fmt: skip
def _machine(ctx: Context) -> Iterator[Hit]:
    kind = ctx.root.find("os", "type")
    machine = kind.get("machine") if kind is not None else ""
    if kind is None or not machine.startswith(f"{MACHINE}-"):
        return
    change = set_attributes(kind, machine=MACHINE)
    becomes = f"machine='{MACHINE}'"
    release = machine_release(machine)
    if release is None:
        if is_distribution_machine(machine):
            message = f"the machine type {machine} exists only in the QEMU of a distribution"
            yield Hit(kind, message, change, becomes=becomes)
    elif ctx.target.qemu is not None and not first_machine(ctx.target.qemu) <= release <= ctx.target.qemu[:2]:
        message = f"QEMU {show(ctx.target.qemu)} does not have the machine type {machine}"
        yield Hit(kind, message, change, Severity.ERROR, becomes=becomes)


@TABLE.rule(
    "PV010", Severity.ERROR, "a timer of another machine",
    why="kvmclock, hypervclock, tsc and hpet are timers of x86, armvtimer of Arm. A guest on s390x uses its TOD clock.",
    effect="libvirt refuses the domain, or QEMU does when it starts.",
    remedy="Remove the timer.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<clock offset='utc'>\n  <timer name='kvmclock' present='yes'/>\n</clock>",
)  # fmt: skip
def _timers(ctx: Context) -> Iterator[Hit]:
    for clock in ctx.root.all("clock"):
        for timer in clock.all("timer"):
            name = timer.get("name")
            if name in TIMERS and TIMERS[name](timer):
                yield Hit(timer, f"s390x does not have this timer: {name}", remove_element(timer), becomes=REMOVED)


@TABLE.rule(
    "PV011", Severity.ERROR, "tables for the firmware of another machine",
    why="SMBIOS, fw_cfg, ACPI tables and a VM generation ID are how a PC's firmware gets its data. The firmware of "
    "s390x does not have them.",
    effect="libvirt refuses the domain, or QEMU does when it starts.",
    remedy="Remove them; a guest that needs such data (Ignition, for example) has to get it in its image or on a disk.",
    safety=Safety.ASK, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<sysinfo type='fwcfg'>\n  <entry name='opt/com.coreos/config' file='/images/config.ign'/>\n</sysinfo>",
)  # fmt: skip
def _tables(ctx: Context) -> Iterator[Hit]:
    smbios = [e for e in ctx.root.all("os") for e in e.all("smbios") if e.get("mode") in ("host", "sysinfo")]
    for element in smbios:
        # without the mode, libvirt accepts the data and ignores it
        change = Change([*remove_element(element), *remove_elements(_sysinfo(ctx, "smbios"))])
        yield Hit(element, f"s390x does not have SMBIOS (mode {element.get('mode')})", change, becomes=REMOVED)
    for element in _sysinfo(ctx, "fwcfg"):
        yield Hit(element, "s390x does not have fw_cfg", remove_element(element), becomes=REMOVED)
    for element in ctx.root.all("genid"):
        yield Hit(element, "s390x does not have a VM generation ID", remove_element(element), becomes=REMOVED)
    for os_element in ctx.root.all("os"):
        for element in os_element.all("acpi"):
            yield Hit(element, "s390x does not have ACPI tables", remove_element(element), becomes=REMOVED)
        for element in os_element.all("bios"):
            if element.get("useserial") == "yes":
                message = "the firmware of s390x does not have a serial console"
                yield Hit(element, message, remove_element(element), becomes=REMOVED)


def _sysinfo(ctx: Context, kind: str) -> list[Element]:
    return [element for element in ctx.root.all("sysinfo") if element.get("type") == kind]


@TABLE.rule(
    "PV012", Severity.ERROR, "an emulator of another architecture",
    why="<emulator> names the program that runs the guest, and each architecture has its own.",
    effect="libvirt refuses the domain: the emulator does not support arch 's390x'.",
    remedy="Remove <emulator>; libvirt finds the one for s390x.",
    safety=Safety.SAFE, ports=True, caught_by=CaughtBy.LIBVIRT,
    example="<emulator>/usr/bin/qemu-system-x86_64</emulator>",
)  # fmt: skip
def _emulator(ctx: Context) -> Iterator[Hit]:
    for element in ctx.domain.devices.all("emulator"):
        match = re.fullmatch(r"qemu-system-(\w+)", PurePosixPath(element.value).name)
        if match is not None and match[1] != "s390x":
            message = f"the emulator {element.value} is for {match[1]}"
            yield Hit(element, message, remove_element(element), becomes=REMOVED)

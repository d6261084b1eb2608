"""What a domain on s390x can contain: the features, timers, processors, devices and buses of its machine.

libvirt has one list of names for all architectures. This table says which of them s390x has (``has``) and which belong
to other machines (``others``); a name in neither is unknown here, and libvirt's schema judges it.

Source: the answers of libvirt 9.0.0 with QEMU 7.2 and of libvirt 11.3.0 with QEMU 10.0 to a domain with each of these
values, recorded in tests/vectors/domains/S390X.tsv. They agree but for what has a version here.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from zseal.domain.document import Element
from zseal.domain.versions import Version


@dataclasses.dataclass(frozen=True)
class Names:
    """The values of one setting: those of s390x, and those of other machines (None: every other value is)."""

    has: frozenset[str]
    others: frozenset[str] | None

    def foreign(self, name: str) -> bool:
        """Whether the value is stated and belongs to another machine."""
        if not name or name in self.has:
            return False
        return self.others is None or name in self.others


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _names(has: str, others: str | None) -> Names:
    return Names(_set(has), None if others is None else _set(others))


# Devices
ABSENT = MappingProxyType({
    "hub": "a USB hub", "nvram": "an NVRAM device", "parallel": "a parallel port", "pstore": "a pstore device",
    "redirdev": "a redirected USB device", "shmem": "a shared-memory device", "smartcard": "a smartcard reader",
    "tpm": "a TPM",
})  # fmt: skip
"""Devices that s390x does not have in any model, by element, and what to call them."""
DISK_BUSES = _names("scsi virtio", "fdc ide sata sd uml usb xen")
INPUT_BUSES = _names("virtio", "ps2 usb xen")
HOST_INPUTS = frozenset({"evdev", "passthrough"})
"""Input devices of the host, which QEMU offers to guests on PCs or on PCI only."""
CONTROLLERS = _names("fdc pci scsi usb virtio-serial", "ccid ide isa sata xenbus")
SCSI_CONTROLLERS = _names(
    "auto virtio-scsi", "am53c974 buslogic dc390 ibmvscsi lsilogic lsisas1068 lsisas1078 ncr53c90 vmpvscsi"
)
USB_CONTROLLERS = _names(
    "none qemu-xhci",
    "ehci ich9-ehci1 ich9-uhci1 ich9-uhci2 ich9-uhci3 nec-xhci pci-ohci piix3-uhci piix4-uhci qusb1 qusb2 "
    "vt82c686b-uhci",
)
XHCI = "qemu-xhci"
"""A USB controller on PCI, which a protected guest does not use."""
WITHOUT_XHCI: Version = (7, 2, 99)
"""A QEMU release up to which s390x does not have it; QEMU 10.0 does."""
PCI_CONTROLLERS = _names(
    "pci-bridge pci-root",
    "dmi-to-pci-bridge pci-expander-bus pcie-expander-bus pcie-root pcie-root-port pcie-switch-downstream-port "
    "pcie-switch-upstream-port pcie-to-pci-bridge",
)
NETWORK_CARDS = _names("virtio virtio-net-pci virtio-transitional virtio-non-transitional", None)
"""QEMU's own names are allowed too, so there is no list of the others."""
NETWORK_CARDS_ON_PCI = frozenset({"e1000e", "igb"})
"""Network cards that QEMU 10.0 has on PCI, which protected guests do not use."""
SCREENS = _names("none virtio", "bochs cirrus gop qxl ramfb vbox vga vmvga xen")
SOUND_CARDS = _names("", "ac97 es1370 ich6 ich7 ich9 pcspk sb16 usb virtio")
WATCHDOGS = _names("diag288", "i6300esb ib700 itco")
PANIC_DEVICES = _names("s390", "hyperv isa pseries pvpanic")
MEMORY_DEVICES = _names("virtio-mem virtio-pmem", "dimm nvdimm sgx-epc")
SERIAL_TARGETS = _names("isa-serial sclp-serial", "isa-debug pci-serial spapr-vio-serial system-serial usb-serial")
"""libvirt turns an isa-serial target without a model, which is x86's default, into an SCLP console."""
SERIAL_MODELS = _names(
    "sclpconsole sclplmconsole", "16550a isa-debugcon isa-serial pci-serial pl011 spapr-vty usb-serial"
)
CONSOLE_TARGETS = _names("sclp sclplm serial virtio", "lxc openvz uml xen")
CHANNEL_TARGETS = _names("guestfwd virtio", "xen")
FILESYSTEM_TYPES = _names("mount", "bind block file ram template volume")
FILESYSTEM_DRIVERS = _names("path virtiofs", "handle loop mtp nbd ploop")
VIRTIO_ADDRESSES = _names("ccw pci", "ccid drive isa spapr-vio unassigned usb virtio-mmio virtio-s390 virtio-serial")

PCI_ONLY = ("acpi", "rom")
"""Children of a device that only PCI devices have."""

# The machine
FEATURES_SINCE: Mapping[str, Version] = MappingProxyType({"acpi": (9, 2, 0)})
"""The libvirt release from which a feature of another machine is refused, if not always."""


def _always(_: Element) -> bool:
    return True


def _on(element: Element) -> bool:
    return element.get("state", "on") == "on"


def _off(element: Element) -> bool:
    return element.get("state") == "off"


FEATURES: Mapping[str, Callable[[Element], bool]] = MappingProxyType(
    dict.fromkeys(
        (
            "acpi", "aia", "ccf-assist", "cfpc", "gic", "hpt", "htm", "hyperv", "ibs", "ioapic", "nested-hv", "pmu",
            "ps2", "pvspinlock", "ras", "sbbc", "smm", "tcg", "vmport",
        ),
        _always,
    )
    | {"vmcoreinfo": _on}
)  # fmt: skip
"""The features of other machines (and of QEMU's emulation), each with what it takes to be refused.

Not here, because domains with them start: apic, capabilities, hap, msrs, pae, privnet, viridian and xen.
"""
KVM_FEATURES: Mapping[str, Callable[[Element], bool]] = MappingProxyType(
    {"hidden": _on, "hint-dedicated": _on, "poll-control": _on, "pv-ipi": _off}
)
"""The same for the children of ``<kvm>``, which become properties of x86 processors."""


def _present(element: Element) -> bool:
    return element.get("present") == "yes"


def _tsc(element: Element) -> bool:
    return _present(element) or element.get("frequency") != ""


def _stated(element: Element) -> bool:
    return element.get("present") != ""


def _pit(element: Element) -> bool:
    return element.get("tickpolicy") in ("catchup", "merge")


def _rtc(element: Element) -> bool:
    return element.get("tickpolicy") in ("discard", "merge") or element.get("track") == "boot"


TIMERS: Mapping[str, Callable[[Element], bool]] = MappingProxyType(
    {
        "armvtimer": _always, "hpet": _present, "hypervclock": _present, "kvmclock": _stated, "pit": _pit,
        "platform": _always, "rtc": _rtc, "tsc": _tsc,
    }
)  # fmt: skip
"""The timers of other machines, each with what it takes to be refused; libvirt accepts rtc and pit and ignores them."""

# Processors
MODEL = re.compile(r"(?:gen\d{2}[a-z]|z\d[\w.]*|z[EB]C12[\w.]*|qemu|max)(?:-base)?")
"""The names of s390x's processor models."""
MODEL_SETTINGS = MappingProxyType({
    "cache": "the processor's cache", "maxphysaddr": "the size of physical addresses", "numa": "NUMA cells",
})  # fmt: skip
"""Children of ``<cpu>`` that s390x does not have, and what they set."""
TOPOLOGY = ("dies", "clusters", "threads")
"""Levels of the processor topology of which s390x has one; it has sockets, books, drawers and cores."""
FEATURE_FAMILIES = re.compile(
    r"(?:dfltcc|kdsa|kimd|klmd|km|kma|kmac|kmc|kmctr|kmf|kmo|pcc|pckmo|pfcr|plo|ppno|prno|ptff|sortl)[-_].+|msa.*"
)
"""The names of the processor features that are functions of one instruction."""
CPU_FEATURES = _set(
    "64bscao aefsi aen ais ap apft appv appvi apqci apqi asnlxr beareh bpb ccf ccf-base cei cmm cmma cmmnt cmpsceh "
    "csske csst csst2 cte ctop dateh dateh2 deflate deflate-base dfp dfphp dfppc dfpzc diag318 ectg edat edat2 eec "
    "eimm els emon esan3 esop esort esort-base etf2 etf2eh etf3 etf3eh etoken exrl fpe fpseh gen13ptff gen17ptff "
    "ginste gpereh gs gsls hfpm hfpue hpma2 iacc2 ib ibs idter idtes iep ineff_nc_tx ipter irbm kss ldisp ldisphp "
    "ltlbc mepoch mepochptff minste2 minste3 minste4 mvcos nnpa nonqks opc pai paie parseh pfmfi pfpo plo_ext ppa15 "
    "rdp ri sea_esop2 sema sief2 sif sigpif siif skey sprogp srs stckf stfle stfle45 stfle49 stfle53 sthyi te tods "
    "tods-base tpei tsi unpack vx vxeh vxeh2 vxeh3 vxpd vxpdeh vxpdeh2 vxpdeh3 zarch zpci"
)
"""The other processor features of QEMU 10.0."""
CPU_FEATURES_UNTIL: Version = (10, 0, 0)
"""The QEMU release that the list of features is complete for."""

# Names of the machine type
MACHINE = "s390-ccw-virtio"
FIRST_MACHINES: Mapping[Version, tuple[int, int]] = MappingProxyType({(0,): (2, 4), (10, 0): (2, 9)})
"""The oldest versioned machine type, by the QEMU release that has dropped those before it."""
LAST_MINOR = MappingProxyType({2: 12, 3: 1})
"""The last release of a major version of QEMU; 2 if not here."""
DISTRIBUTION = re.compile(r"rhel[\d.]+|[a-z]+(?:-v\d+)?")
"""What distributions append to the machine's name: RHEL's release, Ubuntu's series."""
LOADER = re.compile(r"(?:.*/)?s390-(?:ccw|netboot)[\w.-]*")
"""The paths of s390x's own firmware."""


def is_feature(name: str) -> bool:
    """Whether a processor feature is one of s390x."""
    return name in CPU_FEATURES or FEATURE_FAMILIES.fullmatch(name) is not None


def machine_release(machine: str) -> tuple[int, int] | None:
    """The QEMU release that a versioned machine type names; None if it names none that QEMU has had or can have."""
    match = re.fullmatch(rf"{MACHINE}-(\d{{1,3}})\.(\d{{1,2}})", machine)
    if match is None:
        return None
    release = int(match[1]), int(match[2])
    return release if release >= (2, 4) and release[1] <= LAST_MINOR.get(release[0], 2) else None


def first_machine(qemu: Version) -> tuple[int, int]:
    """The oldest machine type that the QEMU release may still have."""
    return max(first for dropped, first in FIRST_MACHINES.items() if dropped <= qemu)


def is_distribution_machine(machine: str) -> bool:
    """Whether the machine type is one that only the QEMU of a distribution has."""
    return machine.startswith(f"{MACHINE}-") and DISTRIBUTION.fullmatch(machine[len(MACHINE) + 1 :]) is not None

"""Messages without codes in them: QEMU, libvirt, the host's and the guest's kernel, and the bootloader."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from zseal.explanations.families.interface import Family, Number, Reading, Scope
from zseal.explanations.families.ultravisor import UltravisorAnswers
from zseal.formats.uv_codes import Command

_QEMU = "QEMU"
_LIBVIRT = "libvirt"
_HOST = "host kernel"
_GUEST = "guest kernel"
_LOADER = "bootloader"
_VALIDATE = "virt-host-validate"
_CHECK = "zseal host check on the host"

# fragment as printed, name, source, meaning, cause, remedy; a fragment is matched without regard to case
_MESSAGES: tuple[tuple[str, str, str, str, str, str], ...] = (
    (
        "Secure unpack facility is not available",
        "NO_UNPACK",
        _LOADER,
        "the guest has no facility 161, so it can't enter protected mode; the bootloader stops with code 0x4607",
        "the host is not set up for protected guests, the CPU model lacks unpack, or QEMU emulates the CPU (TCG)",
        f"{_CHECK}; zseal domain lint on the domain; without IBM Z hardware use zseal run",
    ),
    (
        "Invalid kernel",
        "INVALID_KERNEL",
        _LOADER,
        "the kernel component of the image is not usable; the bootloader stops with code 0x4511",
        "the image was built from a file that is no raw s390x kernel, with --no-component-check",
        "build it from arch/s390/boot/bzImage (vmlinuz), which zseal inspect calls an s390x kernel",
    ),
    (
        "Command line is too large",
        "COMMAND_LINE_TOO_LARGE",
        _LOADER,
        "the kernel parameters in the image are longer than this kernel takes; the bootloader stops with code 0x4511",
        "kernels before 5.18 take 895 characters; newer ones say how many they take, which zseal inspect shows",
        "shorten the parameter file and build the image again",
    ),
    (
        "Failed to set secure execution parameters",
        "SET_SEC_PARMS_FAILED",
        _QEMU,
        "the ultravisor refused the image's header",
        "the image is not built for this machine, or its header is damaged",
        "explain the line with KVM PV command next to it; zseal image test IMAGE -k DOCUMENT",
    ),
    (
        "can currently not be backed with huge pages",
        "HUGE_PAGES",
        _QEMU,
        "guests backed by huge pages can't enter protected mode",
        "<hugepages> in the domain, or -mem-path on hugetlbfs",
        "remove <memoryBacking><hugepages/> from the domain (zseal domain fix)",
    ),
    (
        "protected VMs are currently not migratable",
        "NOT_MIGRATABLE",
        _QEMU,
        "protected guests can't be migrated, saved or snapshotted with memory",
        "virsh migrate, save, managedsave, snapshot or a plain dump of a protected guest",
        "shut it down instead; dumps work with virsh dump --memory-only where the image permits them",
    ),
    (
        "cannot disable RAM discard",
        "RAM_DISCARD",
        _QEMU,
        "a device insists on giving memory back to the host, which protected guests can't do",
        "virtio-mem, or another device that needs discard",
        "remove memory hotplug devices from the domain",
    ),
    (
        "Protected Virtualization requires KVM",
        "NEEDS_KVM",
        _QEMU,
        "the protected-guest object works with KVM only",
        "the domain has type qemu, or KVM is not usable on this host",
        f"{_CHECK}; without IBM Z hardware use zseal run",
    ),
    (
        "CPU model does not support Protected Virtualization",
        "CPU_MODEL",
        _QEMU,
        "the guest's CPU model lacks the feature unpack",
        "a custom model without <feature policy='require' name='unpack'/>, a model before generation 15, or a host "
        "that does not offer it",
        f"use <cpu mode='host-model'/> (zseal domain fix); {_CHECK}",
    ),
    (
        "Protected VMs support a maximum of",
        "TOO_MANY_CPUS",
        _QEMU,
        "the guest has more CPUs than fit one service call block",
        "more than 247 CPUs",
        "use 247 or fewer",
    ),
    (
        "unpack facility is not compatible with the --only-migratable",
        "ONLY_MIGRATABLE",
        _QEMU,
        "a guest that must be migratable can't become protected",
        "-only-migratable with a CPU model that has unpack",
        "drop the option",
    ),
    (
        "invalid object type: s390-pv-guest",
        "NO_PV_OBJECT",
        _QEMU,
        "this QEMU has no object for protected guests",
        "QEMU before 6.0, or one not built on s390x with KVM",
        f"install the distribution's s390x build; {_CHECK}",
    ),
    (
        "Some features requested in the CPU model are not available",
        "CPU_FEATURES",
        _QEMU,
        "the host does not offer a CPU feature that the domain requires, unpack for one",
        "the host is not set up, or QEMU emulates the CPU (TCG has no unpack)",
        f"{_CHECK}; without IBM Z hardware use zseal run",
    ),
    (
        "Property 'virtio-",
        "PCI_ONLY_OPTION",
        _QEMU,
        "a device got an option that only virtio-pci devices have",
        "ats='on' or page_per_vq='on' on a driver of a CCW device",
        "remove the attribute (zseal domain fix)",
    ),
    (
        "is not a valid device model name",
        "PCI_ONLY_MODEL",
        _QEMU,
        "the device model does not exist on this machine",
        "model='virtio-transitional' or 'virtio-non-transitional', which only PCI has",
        "use model='virtio' (zseal domain fix)",
    ),
    (
        "PV launch security is not supported by this host or kernel",
        "HOST_NOT_READY",
        _LIBVIRT,
        "libvirt does not take this host for one that can run protected guests",
        "no facility 158, no /sys/firmware/uv (masked in containers), no prot_virt=1, or an outdated cache",
        f"{_CHECK}; zseal host refresh-libvirt-cache if the host is ready",
    ),
    (
        "launch security is not supported with this QEMU binary",
        "QEMU_NOT_READY",
        _LIBVIRT,
        "libvirt found no protected-guest object in QEMU",
        "QEMU before 6.0 or an x86 build, a type of launch security of another platform, or an outdated cache",
        f"{_CHECK}; zseal host refresh-libvirt-cache if QEMU was updated",
    ),
    (
        "iommu driver option is only supported for virtio devices",
        "IOMMU_NOT_VIRTIO",
        _LIBVIRT,
        "iommu='on' stands on a device that is not virtio",
        "a disk on the scsi bus: it is the controller that has to have the attribute",
        "move it to the virtio-scsi controller (zseal domain fix)",
    ),
    (
        "is only supported with Q35 and ARM Virt machines",
        "IOMMU_DEVICE",
        _LIBVIRT,
        "an <iommu> device is something else than the iommu attribute of drivers, and does not exist here",
        "the two were confused",
        "remove the device, write iommu='on' on the drivers or use <launchSecurity> (zseal domain fix)",
    ),
    (
        "the accel 'kvm' is not supported by",
        "NO_KVM",
        _LIBVIRT,
        "QEMU can't use KVM here",
        "/dev/kvm is missing, or this is no s390x host",
        f"{_CHECK}; without IBM Z hardware use zseal run",
    ),
    (
        "Opening and ending tag mismatch: driver",
        "UNCLOSED_DRIVER",
        _LIBVIRT,
        "the domain is not well-formed XML: a <driver> is opened and never closed",
        "the sample on libvirt's page on protected virtualization has this slip",
        "close it with '/>' (zseal domain fix)",
    ),
    (
        "Hardware or firmware does not provide support for IBM Secure Execution",
        "VALIDATE_FACILITY",
        _VALIDATE,
        "facility 158 is not in /proc/cpuinfo",
        "the machine is older than z15, the feature is not enabled, or this is a guest itself",
        _CHECK,
    ),
    (
        "IBM Secure Execution not supported by the currently used kernel",
        "VALIDATE_KERNEL",
        _VALIDATE,
        "there is no directory /sys/firmware/uv",
        "a kernel before 5.7 or without KVM, or a container that hides /sys/firmware",
        _CHECK,
    ),
    (
        "IBM Secure Execution appears to be disabled in kernel",
        "VALIDATE_DISABLED",
        _VALIDATE,
        "prot_virt=1 is not on the host's kernel command line",
        "it was never added, or zipl was not run after adding it",
        "add prot_virt=1 to the host's kernel parameters, run zipl, reboot",
    ),
    (
        "Unknown if this platform has Secure Guest support",
        "VALIDATE_PLATFORM",
        _VALIDATE,
        "this computer is neither IBM Z nor another platform with protected guests that libvirt knows",
        "virt-host-validate ran on an ordinary PC",
        "run it on the host; on this computer use zseal run",
    ),
    (
        "as ultravisor base storage",
        "RESERVED",
        _HOST,
        "the host's kernel donates memory to the ultravisor: this is the good message",
        "prot_virt=1 works",
        "nothing to do; prot_virt_host is 1 if no failure follows",
    ),
    (
        "for ultravisor base storage",
        "NOT_RESERVED",
        _HOST,
        "the host's kernel found no memory for the ultravisor",
        "the partition is small, or its memory above 2 GiB is taken by other reservations",
        "give the partition more memory, drop mem= and large crashkernel= values, reboot",
    ),
    (
        "Disabling support for protected virtualization",
        "DISABLED",
        _HOST,
        "the host gave up: prot_virt_host is 0 until the next boot",
        "the line in front of it says why",
        "explain that line",
    ),
    (
        "Secure storage violation in task",
        "STORAGE_VIOLATION",
        _HOST,
        "program interruption 0x3f: a guest touched storage of another protected guest",
        "an error of the hypervisor or its kernel; the task is ended",
        "update the host's kernel and QEMU; report it with the kernel's log",
    ),
    (
        "Unexpected PGM 0x3d with TEID bit 61=0",
        "STORAGE_ACCESS",
        _HOST,
        "the host's kernel touched secure storage at an address the hardware could not tell",
        "an error of the host's kernel, such as a branch into a guest's memory",
        "report it with the kernel's log and dump",
    ),
    (
        "Unexpected notification intercept for UVC",
        "NOTIFICATION",
        _HOST,
        "the ultravisor told KVM of a call that KVM does not expect",
        "firmware newer than the host's kernel",
        "update the host's kernel",
    ),
    (
        "System security cannot be guaranteed",
        "SECURITY_PANIC",
        _GUEST,
        "the guest stopped itself: the ultravisor refused to share or unshare a page",
        "an error of the hypervisor, or memory the guest does not have",
        "explain the line with the failed UVC before it; update QEMU and the host's kernel",
    ),
    (
        "device must provide VIRTIO_F_ACCESS_PLATFORM",
        "NO_ACCESS_PLATFORM",
        _GUEST,
        "the guest refuses a virtio device that would bypass its shared bounce buffers; its probe fails (-ENODEV)",
        "the device has no iommu='on', and the domain no <launchSecurity>; or iommu='off' is written",
        "zseal domain lint names the device, zseal domain fix cures it",
    ),
    (
        "device must provide VIRTIO_F_VERSION_1",
        "NO_VERSION_1",
        _GUEST,
        "the guest refuses a virtio device of the old kind; its probe fails (-ENODEV)",
        "a legacy device model or machine version",
        "use model='virtio' and a current s390-ccw-virtio machine",
    ),
    (
        "swiotlb buffer is full",
        "SWIOTLB_FULL",
        _GUEST,
        "the pool of shared bounce buffers has no room for a transfer: I/O is slow or fails",
        "the default of 64 MiB (32768 slots of 2 KiB) is small for busy disks and networks",
        "seal swiotlb=262144 (512 MiB) into the image's parameter file; a number of slots, no unit",
    ),
    (
        "SWIOTLB bounce buffer size adjusted",
        "SWIOTLB_ADJUSTED",
        _GUEST,
        "the pool of bounce buffers did not fit and was halved, or its size was rounded up",
        "more was asked for than lies free below 2 GiB, or no power of two",
        "ask for at most 524288 slots (1 GiB), and less than half of the guest's memory",
    ),
    (
        "software IO TLB: mapped",
        "SWIOTLB_MAPPED",
        _GUEST,
        "the guest made its pool of shared bounce buffers: a normal line of a protected guest",
        "protected guests reach their devices through shared memory only",
        "nothing to do",
    ),
)
_RC = r"\brc:?\s*(?:0x)?(?P<rc>[0-9a-f]{1,4})\W+rrc:?\s*(?:0x)?(?P<rrc>[0-9a-f]{1,4})"
# lines (in lower case) with a code after a fragment of their own, and the call that gave it
_CODED: tuple[tuple[re.Pattern[str], Command | None, str], ...] = (
    (re.compile(rf"ultravisor init failed with {_RC}"), Command.INIT_UV, _HOST),
    (re.compile(rf"(?<!un)share uvc failed.{{0,20}}?{_RC}"), Command.SET_SHARED_ACCESS, _GUEST),
    (re.compile(rf"unshare uvc failed.{{0,20}}?{_RC}"), Command.REMOVE_SHARED_ACCESS, _GUEST),
    (re.compile(rf"protvirt .{{0,80}}?{_RC}"), None, _HOST),
    (re.compile(_RC), None, "a program"),
)
# KVM's debug lines name the step in words
_KVM_STEPS = (
    ("destroy vm fast", Command.DESTROY_SEC_CONF_FAST),
    ("destroy vcpu", Command.DESTROY_SEC_CPU),
    ("destroy cpu", Command.DESTROY_SEC_CPU),
    ("destroy", Command.DESTROY_SEC_CONF),
    ("create vcpu", Command.CREATE_SEC_CPU),
    ("create vm", Command.CREATE_SEC_CONF),
    ("set parms", Command.SET_SEC_CONF_PARAMS),
    ("unpack", Command.UNPACK_IMG),
    ("verify", Command.VERIFY_IMG),
    ("prep reset", Command.PREPARE_RESET),
    ("unshare", Command.SET_UNSHARE_ALL),
    ("set cpu", Command.CPU_SET_STATE),
    ("reset clear", Command.CPU_RESET_CLEAR),
    ("reset initial", Command.CPU_RESET_INITIAL),
    ("reset normal", Command.CPU_RESET),
    ("dump init", Command.DUMP_INIT),
    ("dump cpu", Command.DUMP_CPU),
    ("dump storage state", Command.DUMP_CONF_STOR_STATE),
)
_ANSWERS = UltravisorAnswers()


def _reading(entry: tuple[str, str, str, str, str, str]) -> Reading:
    fragment, name, source, meaning, cause, remedy = entry
    return Reading(f'"{fragment}"', name, source, meaning, cause, remedy)


class Messages(Family):
    """Lines of text, known by a fragment."""

    def text(self, line: str, scope: Scope) -> Sequence[Reading]:
        """Look for every known fragment, and for an rc with its rrc."""
        low = line.lower()
        readings = [_reading(entry) for entry in _MESSAGES if entry[0].lower() in low]
        if "kvm_pv_" in low:
            return readings  # the lines of QEMU and the bootloader, which families/boot.py reads
        for pattern, known, source in _CODED:
            match = pattern.search(low)
            if match is None:
                continue
            command = known
            if command is None and "protvirt" in low:
                command = next((c for words, c in _KVM_STEPS if words in low), None)
            narrowed = scope if command is None else Scope(frozenset((command,)))
            codes = _ANSWERS.number(Number(int(match["rc"], 16), int(match["rrc"], 16), "rc"), narrowed)
            return [*codes, *readings] if codes else [*readings, *self._undocumented(match, source)]
        return readings

    @staticmethod
    def _undocumented(match: re.Match[str], source: str) -> list[Reading]:
        return [
            Reading(
                f"rc {int(match['rc'], 16):#06x} rrc {int(match['rrc'], 16):#06x}",
                "UNDOCUMENTED",
                f"ultravisor, told by {source}",
                "an answer that is not documented",
                "IBM publishes no meaning for it",
                "ask IBM support with both codes",
            )
        ]

    def all(self) -> Iterable[Reading]:
        """Return every message."""
        return map(_reading, _MESSAGES)


FAMILIES: tuple[Family, ...] = (Messages(),)

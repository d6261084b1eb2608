"""What libvirt and virt-host-validate print."""

from __future__ import annotations

from zseal.messages.message import Meaning, Message, Role

LIBVIRT = "libvirt"
VALIDATE = "virt-host-validate"

HOST_NOT_READY = Message(
    "HOST_NOT_READY",
    LIBVIRT,
    "PV launch security is not supported by this host or kernel",
    Meaning(
        "libvirt does not consider this host able to run protected guests",
        "no facility 158, no /sys/firmware/uv (masked in containers), no prot_virt=1, or an outdated cache",
        "zseal host check on the host; zseal host refresh-libvirt-cache if the host is ready",
    ),
)
IOMMU_NOT_VIRTIO = Message(
    "IOMMU_NOT_VIRTIO",
    LIBVIRT,
    "iommu driver option is only supported for virtio devices",
    Meaning(
        "iommu='on' is set on a device that is not virtio",
        "a disk on the scsi bus: the controller must have the attribute",
        "move it to the virtio-scsi controller (zseal domain fix)",
    ),
)

NO_MACHINE_TYPE = Message(
    "NO_MACHINE_TYPE",
    LIBVIRT,
    "does not support machine type",
    Meaning(
        "this QEMU does not have the domain's machine type",
        "the type belongs to a newer QEMU or to another distribution's (-rhel…, -noble)",
        "use machine='s390-ccw-virtio' (zseal domain lint)",
    ),
)
MESSAGES = (
    HOST_NOT_READY,
    Message(
        "QEMU_NOT_READY",
        LIBVIRT,
        "launch security is not supported with this QEMU binary",
        Meaning(
            "libvirt found no protected-guest object in QEMU",
            "QEMU before 6.0 or an x86 build, a type of launch security of another platform, or an outdated cache",
            "zseal host check on the host; zseal host refresh-libvirt-cache if QEMU was updated",
        ),
    ),
    IOMMU_NOT_VIRTIO,
    Message(
        "IOMMU_DEVICE",
        LIBVIRT,
        "is only supported with Q35 and ARM Virt machines",
        Meaning(
            "an <iommu> device is something else than the iommu attribute of drivers, and does not exist here",
            "the two were confused",
            "remove the device, write iommu='on' on the drivers or use <launchSecurity> (zseal domain fix)",
        ),
    ),
    Message(
        "NO_KVM",
        LIBVIRT,
        "the accel 'kvm' is not supported by",
        Meaning(
            "QEMU cannot use KVM here",
            "/dev/kvm is missing, or this is not an s390x host",
            "zseal host check on the host; without IBM Z hardware use zseal run",
        ),
    ),
    Message(
        "UNCLOSED_DRIVER",
        LIBVIRT,
        "Opening and ending tag mismatch: driver",
        Meaning(
            "the domain is not well-formed XML: a <driver> is opened and never closed",
            "the sample on libvirt's page on protected virtualization has this mistake",
            "close it with '/>' (zseal domain fix)",
        ),
    ),
    Message(
        "VALIDATE_FACILITY",
        VALIDATE,
        "Hardware or firmware does not provide support for IBM Secure Execution",
        Meaning(
            "facility 158 is not in /proc/cpuinfo",
            "the machine is older than z15, the feature is not enabled, or this is a guest itself",
            "zseal host check on the host",
        ),
    ),
    Message(
        "VALIDATE_KERNEL",
        VALIDATE,
        "IBM Secure Execution not supported by the currently used kernel",
        Meaning(
            "there is no directory /sys/firmware/uv",
            "a kernel before 5.7 or without KVM, or a container that hides /sys/firmware",
            "zseal host check on the host",
        ),
    ),
    Message(
        "VALIDATE_DISABLED",
        VALIDATE,
        "IBM Secure Execution appears to be disabled in kernel",
        Meaning(
            "prot_virt=1 is not in the host's kernel parameters",
            "it was never added, or zipl was not run after adding it",
            "add prot_virt=1 to the host's kernel parameters, run zipl, reboot",
        ),
    ),
    Message(
        "VALIDATE_PLATFORM",
        VALIDATE,
        "Unknown if this platform has Secure Guest support",
        Meaning(
            "this computer is neither IBM Z nor another platform with protected guests that libvirt knows",
            "virt-host-validate ran on an ordinary PC",
            "run it on the host; on this computer use zseal run",
        ),
    ),
    Message(
        "OUTDATED_CAPABILITIES",
        LIBVIRT,
        "Outdated capabilities for '…'",
        Meaning(
            "libvirt noticed that what it knew of QEMU is out of date, and asks QEMU again",
            "QEMU, libvirt, the kernel or the host's support for protected guests changed",
            "nothing to do; if libvirt still has the old answers, zseal host refresh-libvirt-cache",
        ),
        Role.NORMAL,
    ),
    Message(
        "NO_ACPI",
        LIBVIRT,
        "machine type '…' does not support ACPI",
        Meaning("s390x has no ACPI", "<acpi/> in <features>, from a PC's domain", "remove <acpi/> (zseal domain lint)"),
    ),
    Message(
        "NEEDS_SHARED_MEMORY",
        LIBVIRT,
        "'…' requires shared memory",
        Meaning(
            "the device works on the guest's memory from another process, so the memory must be shared with that",
            "a virtiofs or vhost-user device without <memoryBacking><access mode='shared'/>",
            "add <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
        ),
    ),
    Message(
        "NO_CAPABILITIES",
        LIBVIRT,
        "could not find capabilities for",
        Meaning(
            "libvirt has no QEMU that can run this domain",
            "KVM is not usable (domaintype=kvm), QEMU for s390x is not installed, or libvirt asked before it was",
            "qemu-system-s390x --version; zseal host check on the host; restart libvirt's daemon after installing QEMU",
        ),
    ),
    NO_MACHINE_TYPE,
    Message(
        "NO_VIRT_TYPE",
        LIBVIRT,
        "does not support virt type",
        Meaning(
            "this QEMU cannot use KVM",
            "/dev/kvm is missing, or this is not an s390x host",
            "zseal host check on the host; without IBM Z hardware use zseal run",
        ),
    ),
    Message(
        "QEMU_EXITED",
        LIBVIRT,
        "process exited while connecting to monitor",
        Meaning(
            "QEMU ended before the guest began",
            "QEMU's own words follow in the line, or are in /var/log/libvirt/qemu/NAME.log",
            "explain those words",
        ),
        Role.CONSEQUENCE,
    ),
    Message(
        "QEMU_CLOSED",
        LIBVIRT,
        "unexpectedly closed the monitor",
        Meaning(
            "QEMU ended, so libvirt lost the guest",
            "QEMU's own words follow in the line, or are in /var/log/libvirt/qemu/NAME.log",
            "explain those words",
        ),
        Role.CONSEQUENCE,
    ),
    Message(
        "START_FAILED",
        LIBVIRT,
        "Failed to start domain",
        Meaning("the domain did not start", "the next line gives the reason", "explain that line"),
        Role.CONSEQUENCE,
    ),
    Message(
        "NO_DAEMON",
        LIBVIRT,
        "Failed to connect socket to '/var/run/libvirt/…'",
        Meaning(
            "libvirt's daemon does not run",
            "the service is not started, or not installed",
            "systemctl start virtqemud.socket, or libvirtd on older distributions",
        ),
    ),
    Message(
        "VALIDATE_VIRTUALIZATION",
        VALIDATE,
        "Checking for hardware virtualization…: FAIL",
        Meaning(
            "the CPU does not offer virtualization: /proc/cpuinfo has no feature sie",
            (
                "the partition or the guest in which this runs may not have virtual machines of its own, or this is "
                "not an IBM Z"
            ),
            "run it in an LPAR; zseal host check on the host; without IBM Z hardware use zseal run",
        ),
    ),
)

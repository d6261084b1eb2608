"""What libvirt and virt-host-validate print."""

from __future__ import annotations

from zseal.messages.message import Meaning, Message

LIBVIRT = "libvirt"
VALIDATE = "virt-host-validate"

HOST_NOT_READY = Message(
    "HOST_NOT_READY",
    LIBVIRT,
    "PV launch security is not supported by this host or kernel",
    Meaning(
        "libvirt does not take this host for one that can run protected guests",
        "no facility 158, no /sys/firmware/uv (masked in containers), no prot_virt=1, or an outdated cache",
        "zseal host check on the host; zseal host refresh-libvirt-cache if the host is ready",
    ),
)
QEMU_NOT_READY = Message(
    "QEMU_NOT_READY",
    LIBVIRT,
    "launch security is not supported with this QEMU binary",
    Meaning(
        "libvirt found no protected-guest object in QEMU",
        "QEMU before 6.0 or an x86 build, a type of launch security of another platform, or an outdated cache",
        "zseal host check on the host; zseal host refresh-libvirt-cache if QEMU was updated",
    ),
)
IOMMU_NOT_VIRTIO = Message(
    "IOMMU_NOT_VIRTIO",
    LIBVIRT,
    "iommu driver option is only supported for virtio devices",
    Meaning(
        "iommu='on' stands on a device that is not virtio",
        "a disk on the scsi bus: it is the controller that has to have the attribute",
        "move it to the virtio-scsi controller (zseal domain fix)",
    ),
)
IOMMU_DEVICE = Message(
    "IOMMU_DEVICE",
    LIBVIRT,
    "is only supported with Q35 and ARM Virt machines",
    Meaning(
        "an <iommu> device is something else than the iommu attribute of drivers, and does not exist here",
        "the two were confused",
        "remove the device, write iommu='on' on the drivers or use <launchSecurity> (zseal domain fix)",
    ),
)
NO_KVM = Message(
    "NO_KVM",
    LIBVIRT,
    "the accel 'kvm' is not supported by",
    Meaning(
        "QEMU cannot use KVM here",
        "/dev/kvm is missing, or this is no s390x host",
        "zseal host check on the host; without IBM Z hardware use zseal run",
    ),
)
UNCLOSED_DRIVER = Message(
    "UNCLOSED_DRIVER",
    LIBVIRT,
    "Opening and ending tag mismatch: driver",
    Meaning(
        "the domain is not well-formed XML: a <driver> is opened and never closed",
        "the sample on libvirt's page on protected virtualization has this slip",
        "close it with '/>' (zseal domain fix)",
    ),
)
VALIDATE_FACILITY = Message(
    "VALIDATE_FACILITY",
    VALIDATE,
    "Hardware or firmware does not provide support for IBM Secure Execution",
    Meaning(
        "facility 158 is not in /proc/cpuinfo",
        "the machine is older than z15, the feature is not enabled, or this is a guest itself",
        "zseal host check on the host",
    ),
)
VALIDATE_KERNEL = Message(
    "VALIDATE_KERNEL",
    VALIDATE,
    "IBM Secure Execution not supported by the currently used kernel",
    Meaning(
        "there is no directory /sys/firmware/uv",
        "a kernel before 5.7 or without KVM, or a container that hides /sys/firmware",
        "zseal host check on the host",
    ),
)
VALIDATE_DISABLED = Message(
    "VALIDATE_DISABLED",
    VALIDATE,
    "IBM Secure Execution appears to be disabled in kernel",
    Meaning(
        "prot_virt=1 is not on the host's kernel command line",
        "it was never added, or zipl was not run after adding it",
        "add prot_virt=1 to the host's kernel parameters, run zipl, reboot",
    ),
)
VALIDATE_PLATFORM = Message(
    "VALIDATE_PLATFORM",
    VALIDATE,
    "Unknown if this platform has Secure Guest support",
    Meaning(
        "this computer is neither IBM Z nor another platform with protected guests that libvirt knows",
        "virt-host-validate ran on an ordinary PC",
        "run it on the host; on this computer use zseal run",
    ),
)

MESSAGES = (
    HOST_NOT_READY,
    QEMU_NOT_READY,
    IOMMU_NOT_VIRTIO,
    IOMMU_DEVICE,
    NO_KVM,
    UNCLOSED_DRIVER,
    VALIDATE_FACILITY,
    VALIDATE_KERNEL,
    VALIDATE_DISABLED,
    VALIDATE_PLATFORM,
)

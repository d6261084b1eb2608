"""What the early user space of Linux (initramfs-tools, dracut, systemd) prints if it does not find the root disk."""

from __future__ import annotations

from zseal.messages.message import Meaning, Message, Role

INITRAMFS = "ramdisk of the guest"
ROOT_UNREACHABLE = (
    "the device was refused (a virtio device without iommu='on'), its driver is not in the ramdisk, or root= is wrong"
)
LOOK_FOR_ROOT = (
    "look above for VIRTIO_F_ACCESS_PLATFORM; zseal domain lint; compare root= with the disks that the guest has"
)

ROOT_MISSING = Message(
    "ROOT_MISSING",
    INITRAMFS,
    "ALERT! … does not exist",
    Meaning("the guest's root disk is not there", ROOT_UNREACHABLE, LOOK_FOR_ROOT),
)
ROOT_TIMEOUT = Message(
    "ROOT_TIMEOUT",
    INITRAMFS,
    "dracut-initqueue…Could not boot",
    Meaning("the guest's root disk did not appear in time", ROOT_UNREACHABLE, LOOK_FOR_ROOT),
)

MESSAGES = (
    ROOT_MISSING,
    ROOT_TIMEOUT,
    Message(
        "ROOT_GAVE_UP",
        INITRAMFS,
        "Gave up waiting for root",
        Meaning(
            "the guest's root disk did not appear in time",
            "the next line names the disk",
            "explain that line; look above for VIRTIO_F_ACCESS_PLATFORM",
        ),
        Role.CONSEQUENCE,
    ),
    Message(
        "INITQUEUE_TIMEOUT",
        INITRAMFS,
        "dracut-initqueue timeout",
        Meaning(
            "the guest waits for its root disk, in vain so far",
            "the device was refused, is slow, or is not there",
            "look above for VIRTIO_F_ACCESS_PLATFORM; zseal domain lint",
        ),
        Role.CONSEQUENCE,
    ),
    Message(
        "DEVICE_TIMEOUT",
        INITRAMFS,
        "Timed out waiting for device",
        Meaning(
            "a disk in /etc/fstab or root= did not appear in time",
            "the device was refused (a virtio device without iommu='on') or is not part of the domain",
            "look above for VIRTIO_F_ACCESS_PLATFORM; zseal domain lint",
        ),
    ),
)

"""What QEMU's boot firmware for s390x (s390-ccw) prints on the console before anything is loaded."""

from __future__ import annotations

from zseal.messages.message import Meaning, Message, Role

FIRMWARE = "boot firmware (s390-ccw)"

MESSAGES = (
    Message(
        "NO_BOOT_DEVICE",
        FIRMWARE,
        "Could not find a suitable boot device",
        Meaning(
            "no disk, network card or kernel file to boot from was found",
            (
                "the domain has neither <kernel> nor a device with a boot order, the disk is empty, or its device "
                "number (devno) is not the one asked for"
            ),
            "give <kernel> the image, or run zipl on the disk and write <boot order='1'/> on it",
        ),
    ),
    Message(
        "NO_IPL_DEVICE",
        FIRMWARE,
        "No IPL device available",
        Meaning(
            "the firmware has no device to boot from",
            "no disk of the domain is bootable",
            "run zipl on the disk; zseal image info DISK finds images on it",
        ),
    ),
    Message(
        "NOT_BOOTABLE",
        FIRMWARE,
        "! No EXEC entry !",
        Meaning(
            "the disk's boot map has no program to start",
            "zipl did not finish, or the disk was copied without its boot map",
            "run zipl on the disk again",
        ),
    ),
    Message(
        "IPL_RETURNS",
        FIRMWARE,
        "IPL returns",
        Meaning(
            "what the firmware started came back, so nothing boots",
            "the boot record of the disk is damaged",
            "run zipl on the disk again",
        ),
    ),
    Message(
        "NO_OPERATING_SYSTEM",
        FIRMWARE,
        "Failed to IPL this ISO image",
        Meaning(
            "the CD image is not bootable on s390x",
            "an ISO image for PCs, or a damaged one",
            "use the s390x edition; a Secure Execution image goes into <kernel> or onto a disk by zipl",
        ),
    ),
    Message(
        "BOOT_FAILED",
        FIRMWARE,
        "Boot failed.",
        Meaning("nothing was booted", "the line before it says why", "explain that line"),
        Role.CONSEQUENCE,
    ),
)

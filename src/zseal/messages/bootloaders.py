"""What bootloaders print on the console of a guest."""

from __future__ import annotations

from zseal.messages.message import Meaning, Message

BOOTLOADER = "bootloader"

NO_UNPACK = Message(
    "NO_UNPACK",
    BOOTLOADER,
    "Secure unpack facility is not available",
    Meaning(
        ("the guest has no facility 161, so it cannot enter protected mode; the bootloader stops with code 0x4607"),
        ("the host is not set up for protected guests, the CPU model lacks unpack, or QEMU emulates the CPU (TCG)"),
        "zseal host check on the host; zseal domain lint on the domain; without IBM Z hardware use zseal run",
    ),
)
INVALID_KERNEL = Message(
    "INVALID_KERNEL",
    BOOTLOADER,
    "Invalid kernel",
    Meaning(
        "the kernel component of the image is not usable; the bootloader stops with code 0x4511",
        "the image was built from a file that is no raw s390x kernel, with --no-component-check",
        "build it from arch/s390/boot/bzImage (vmlinuz), which zseal inspect calls an s390x kernel",
    ),
)
COMMAND_LINE_TOO_LARGE = Message(
    "COMMAND_LINE_TOO_LARGE",
    BOOTLOADER,
    "Command line is too large",
    Meaning(
        ("the kernel parameters in the image are longer than this kernel takes; the bootloader stops with code 0x4511"),
        ("kernels before 5.18 take 895 characters; newer ones say how many they take, which zseal inspect shows"),
        "shorten the parameter file and build the image again",
    ),
)

MESSAGES = (
    NO_UNPACK,
    INVALID_KERNEL,
    COMMAND_LINE_TOO_LARGE,
)

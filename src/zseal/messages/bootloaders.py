"""What the bootloaders in boot images print on the console of a guest: IBM's since s390-tools 2.38, and zseal's own."""

from __future__ import annotations

from zseal.formats.uv_codes import ResponseCode, SetParameters, VerifyImage
from zseal.messages.message import Meaning, Message

BOOTLOADER = "bootloader"

NO_UNPACK = Message(
    "NO_UNPACK",
    BOOTLOADER,
    "Secure unpack facility is not available",
    Meaning(
        "the guest has no facility 161, so it cannot enter protected mode; the bootloader stops with code 0x4607",
        "the host is not set up for protected guests, the CPU model lacks unpack, or QEMU emulates the CPU (TCG)",
        "zseal host check on the host; zseal domain lint on the domain; without IBM Z hardware use zseal run",
    ),
)

MESSAGES = (
    NO_UNPACK,
    Message(
        "INVALID_KERNEL",
        BOOTLOADER,
        "Invalid kernel",
        Meaning(
            "the kernel component of the image is not usable; the bootloader stops with code 0x4511",
            "the image was built from a file that is not a raw s390x kernel, with --no-component-check",
            "build it from arch/s390/boot/bzImage (vmlinuz), which zseal inspect calls an s390x kernel",
        ),
    ),
    Message(
        "COMMAND_LINE_TOO_LARGE",
        BOOTLOADER,
        "Command line is too large",
        Meaning(
            "the kernel parameters in the image are too long for this kernel; the bootloader stops with code 0x4511",
            "kernels before 5.18 take 895 characters; newer ones say how many they take, which zseal inspect shows",
            "shorten the kernel parameters and build the image again",
        ),
    ),
    Message(
        "NOT_TERMINATED",
        BOOTLOADER,
        "Command line needs to be null-terminated",
        Meaning(
            "the kernel parameters in the image are damaged; the bootloader stops with code 0x4511",
            "the image was changed, or built by a faulty tool",
            "build the image again",
        ),
    ),
    Message(
        "NOT_FOR_THIS_HOST",
        BOOTLOADER,
        "Ensure that the image is correctly encrypted for this host",
        Meaning(
            "the ultravisor answered rc 0x0108: it cannot open the image's header",
            "the image is not built for this machine's host key",
            (
                "zseal image test IMAGE -k DOCUMENT shows which host-key documents fit; the host's own hashes are in "
                "/sys/firmware/uv/keys/all"
            ),
        ),
    ),
    Message(
        "CANNOT_BE_OPENED",
        BOOTLOADER,
        "The image cannot be opened: was it encrypted for this host?",
        Meaning(
            "the ultravisor answered rc 0x0108: it cannot open the image's header",
            "the image is not built for this machine's host key",
            (
                "zseal image test IMAGE -k DOCUMENT shows which host-key documents fit; the host's own hashes are in "
                "/sys/firmware/uv/keys/all"
            ),
        ),
    ),
    Message(
        "IMAGE_CHECK_FAILED",
        BOOTLOADER,
        "Image check failed: the image is not the one its header describes",
        Meaning(
            "the ultravisor answered rc 0x0102: what was loaded is not what the header describes",
            "the image was changed or cut off after it was built",
            "zseal image info --check-digests IMAGE; take an undamaged copy",
        ),
    ),
    Message(
        "NO_CONFIGURATION",
        BOOTLOADER,
        "The hypervisor has no configuration for a protected guest",
        Meaning(
            "the hypervisor has no parameter block of the image",
            "the bootloader's request did not reach it, or another one replaced it",
            "use an unchanged bootloader; zseal inspect IMAGE",
        ),
    ),
    Message(
        "HEADER_DAMAGED",
        BOOTLOADER,
        "The SE header is damaged",
        Meaning(
            "the ultravisor answered rc 0x010a: the image's header is not valid",
            "the image was changed, cut off or loaded to another place",
            "zseal inspect IMAGE; build the image again, or take an undamaged copy",
        ),
    ),
)

ANSWERS: tuple[tuple[str, ResponseCode], ...] = (
    ("Address digest list (ALD) mismatch", VerifyImage.ADDRESSES),
    ("Page digest list (PLD) mismatch", VerifyImage.PAGES),
    ("Tweak digest list (TLD) mismatch", VerifyImage.TWEAKS),
    ("Mismatch in number of encrypted pages", VerifyImage.COUNT),
    ("Mismatch in IBM Secure Execution image header version", SetParameters.VERSION),
    ("An unsupported plaintext control flag is set", SetParameters.PLAINTEXT_FLAG),
    ("The secondary host key hash of the IBM Secure Execution image", SetParameters.BACKUP_KEY),
    ("does not match the host key of the installed key bundle", SetParameters.HOST_KEY),
    ("The public customer ECDH key in the IBM Secure Execution image is not valid", SetParameters.CUSTOMER_KEY),
    ("An unsupported secret control flag is set", SetParameters.SECRET_FLAG),
    ("Mismatch in IBM Secure Execution image header size", SetParameters.HEADER_SIZE),
    ("The size of the encrypted area in the IBM Secure Execution image is invalid", SetParameters.ENCRYPTED_SIZE),
    ("There are no host keys in", SetParameters.NO_KEY_SLOTS),
    ("Image check failed: a component is not at the address it was built for (ALD)", VerifyImage.ADDRESSES),
    ("Image check failed: the content of a component was changed (PLD)", VerifyImage.PAGES),
    ("Image check failed: the tweak of a component was changed (TLD)", VerifyImage.TWEAKS),
    ("Image check failed: the number of encrypted pages is not the header's", VerifyImage.COUNT),
    ("The version of the SE header is not supported by this machine", SetParameters.VERSION),
    ("The image needs a plaintext control flag this machine does not support", SetParameters.PLAINTEXT_FLAG),
    ("No key slot of the image matches the host key of this machine", SetParameters.HOST_KEY),
    ("The public customer key in the SE header is not valid", SetParameters.CUSTOMER_KEY),
    ("A key slot does not match the backup (secondary) host key of this machine", SetParameters.BACKUP_KEY),
    ("The image needs a secret control flag this machine does not support", SetParameters.SECRET_FLAG),
    ("The SE header is damaged: wrong header size", SetParameters.HEADER_SIZE),
    ("The SE header is damaged: wrong size of its encrypted area", SetParameters.ENCRYPTED_SIZE),
    ("The SE header is damaged: it has no key slot for any host", SetParameters.NO_KEY_SLOTS),
)
"""Sentences that stand for one answer of the ultravisor; the first that is in a line counts."""

"""What other programs print about protected guests, one module for each: the line, its meaning, cause and remedy.

``zseal explain`` looks lines up here; a run recognises messages on its guest's console; refusals quote QEMU.
"""

from zseal.messages import (
    bootloaders,
    firmware,
    guest_boot,
    guest_kernel,
    host_kernel,
    initramfs,
    libvirt,
    qemu,
    s390_tools,
)
from zseal.messages.message import ANYTHING, Meaning, Message, Role

ALL_MESSAGES: tuple[Message, ...] = (
    *bootloaders.MESSAGES,
    *qemu.MESSAGES,
    *libvirt.MESSAGES,
    *host_kernel.MESSAGES,
    *firmware.MESSAGES,
    *guest_boot.MESSAGES,
    *guest_kernel.MESSAGES,
    *initramfs.MESSAGES,
    *s390_tools.MESSAGES,
)
"""Every message, in the order in which they are compared with a line."""

__all__ = ["ALL_MESSAGES", "ANYTHING", "Meaning", "Message", "Role"]

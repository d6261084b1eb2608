"""What other programs print about protected guests, a module a program: each line, its meaning, cause and remedy.

``zseal explain`` looks lines up here; a run recognises what its guest's console shows; refusals quote what QEMU says.
"""

from zseal.messages import bootloaders, guest_kernel, host_kernel, libvirt, qemu
from zseal.messages.message import ANYTHING, Meaning, Message, Role

ALL_MESSAGES: tuple[Message, ...] = (
    *bootloaders.MESSAGES,
    *qemu.MESSAGES,
    *libvirt.MESSAGES,
    *host_kernel.MESSAGES,
    *guest_kernel.MESSAGES,
)
"""Every message, in the order in which they are compared with a line."""

__all__ = ["ALL_MESSAGES", "ANYTHING", "Meaning", "Message", "Role"]

"""A tiny bare-metal s390x guest that replaces a Linux kernel in tests and demonstrations.

It does what the words of its command line list (share pages, query the ultravisor, power off, …), each with a line on
the console; docs/bootloaders.md lists the words. Built from ``native/testguest``.
"""

from __future__ import annotations

from zseal import _native

__all__ = ["kernel"]


def kernel() -> bytes:
    """Return the guest as an s390x kernel image of some 90 KiB, as ``zseal image create --kernel`` takes it.

    Raw binary, file offset = absolute address: entry at 0x10000, ``S390EP`` at 0x10008, room for a command line of 4096
    bytes at 0x10480.
    """
    return _native.guest_program("testguest")

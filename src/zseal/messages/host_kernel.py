"""What the kernel of a host prints about the ultravisor and its guests."""

from __future__ import annotations

import re

from zseal.messages.message import RC_AND_RRC, Meaning, Message, Role

HOST = "host kernel"

INIT_FAILED = re.compile(f"ultravisor init failed with {RC_AND_RRC}", re.IGNORECASE)
"""The ultravisor refused to start; the line has its answer to INIT_UV."""

RESERVED = Message(
    "RESERVED",
    HOST,
    "as ultravisor base storage",
    Meaning(
        "the host's kernel donates memory to the ultravisor: this is the good message",
        "prot_virt=1 works",
        "nothing to do; prot_virt_host is 1 if no failure follows",
    ),
    Role.NORMAL,
    values=re.compile(r"prot_virt: Reserving (?P<mib>\d{1,12})MB as ultravisor base storage"),
)
NOT_RESERVED = Message(
    "NOT_RESERVED",
    HOST,
    "for ultravisor base storage",
    Meaning(
        "the host's kernel found no memory for the ultravisor",
        "the partition is small, or its memory above 2 GiB is taken by other reservations",
        "give the partition more memory, drop mem= and large crashkernel= values, reboot",
    ),
    values=re.compile(r"prot_virt: Failed to reserve (?P<bytes>\d{1,18}) bytes"),
)

MESSAGES = (
    RESERVED,
    NOT_RESERVED,
    Message(
        "DISABLED",
        HOST,
        "Disabling support for protected virtualization",
        Meaning(
            "the host gave up: prot_virt_host is 0 until the next boot",
            "the line before it gives the reason",
            "explain that line",
        ),
        Role.CONSEQUENCE,
    ),
    Message(
        "STORAGE_VIOLATION",
        HOST,
        "Secure storage violation in task",
        Meaning(
            "program interruption 0x3f: a guest touched storage of another protected guest",
            "an error of the hypervisor or its kernel; the task is ended",
            "update the host's kernel and QEMU; report it with the kernel's log",
        ),
    ),
    Message(
        "STORAGE_ACCESS",
        HOST,
        "Unexpected PGM 0x3d with TEID bit 61=0",
        Meaning(
            "the host's kernel touched secure storage at an address that the hardware could not determine",
            "an error of the host's kernel, such as a branch into a guest's memory",
            "report it with the kernel's log and dump",
        ),
    ),
    Message(
        "NOTIFICATION",
        HOST,
        "Unexpected notification intercept for UVC",
        Meaning(
            "the ultravisor notified KVM of a call that KVM does not expect",
            "firmware newer than the host's kernel",
            "update the host's kernel",
        ),
    ),
    Message(
        "PROCESS_FAULT",
        HOST,
        "User process fault: interruption code 003d",
        Meaning(
            "program interruption 0x3d ended a process: it touched secure storage",
            "a program on the host read a protected guest's memory, such as a debugger or a dump tool",
            "nothing is wrong with the guest; such tools cannot see its memory",
        ),
    ),
    Message(
        "INTEGRITY_FAULT",
        HOST,
        "User process fault: interruption code 003e",
        Meaning(
            "program interruption 0x3e ended QEMU: a page of a protected guest could not be made secure again",
            "the page's content changed while it was out, for example in damaged swap",
            "look for I/O errors of the swap device; start the guest again",
        ),
    ),
)

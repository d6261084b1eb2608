"""What the kernel of a guest prints when it cannot start or has to stop: its decompressor, its drivers, its panics."""

from __future__ import annotations

import dataclasses
import re
import signal

from zseal.arch.interruption import ProgramCode
from zseal.messages.guest_kernel import GUEST
from zseal.messages.initramfs import LOOK_FOR_ROOT, ROOT_UNREACHABLE
from zseal.messages.message import Meaning, Message, Role

_DECOMPRESSOR = "guest kernel, while it unpacks itself"
_SMALL = "the guest has little memory, or mem= in its kernel parameters takes most of it away"
_MORE = "give the guest more memory, or remove mem= from the parameters in the image"


def _init_killed(code: int) -> Meaning:
    """``code`` is init's exit code as the kernel prints it: the signal in bits 0 to 6, the status above bit 7."""
    number = code & 0x7F
    if not number:
        return Meaning(
            f"the first program (init) ended, with exit status {code >> 8 & 0xFF}",
            "a script used as init came to its end or stopped at an error",
            "init must never end: let it power off at its end; look at its last lines above",
        )
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    illegal = number == signal.SIGILL
    return Meaning(
        f"the first program (init) was killed by {name}",
        "its code is built for a newer machine than this CPU" if illegal else "a faulty program or library",
        "use programs built for the guest's CPU model, or a newer model"
        if illegal
        else "look at its last lines above; try the same disk or ramdisk without protection",
    )


_PANICS: tuple[tuple[str, Meaning], ...] = (
    (
        "VFS: Unable to mount root fs",
        Meaning(
            "the kernel cannot mount its root file system",
            f"the image has no ramdisk, or {ROOT_UNREACHABLE}",
            f"seal a ramdisk with the driver (virtio_blk) into the image (-r); {LOOK_FOR_ROOT}",
        ),
    ),
    (
        "No working init found",
        Meaning(
            "the root file system has no program to start",
            "the disk or ramdisk is not a whole system, or is one of another architecture",
            "put an s390x /init into the ramdisk, or name the program with init= (rdinit= in a ramdisk)",
        ),
    ),
    (
        "Requested init",
        Meaning(
            "the program named with init= cannot be started",
            "it is not on the disk, or it is not an s390x program",
            "correct init= in the kernel parameters and build the image again",
        ),
    ),
    (
        "Out of memory",
        Meaning("the guest ran out of memory", _SMALL, _MORE),
    ),
    (
        "System is deadlocked on memory",
        Meaning("the guest ran out of memory", _SMALL, _MORE),
    ),
    (
        "not enough memory",
        Meaning("the guest has too little memory to boot", _SMALL, _MORE),
    ),
    (
        "Failed to allocate",
        Meaning("the guest has too little memory to boot", _SMALL, _MORE),
    ),
    (
        "sysrq triggered crash",
        Meaning(
            "the guest crashed on request",
            "echo c > /proc/sysrq-trigger, to test kdump for example",
            "nothing to do",
        ),
    ),
    (
        "Fatal exception",
        Meaning(
            "the kernel ran into an error of its own",
            "the oops above shows it; an operation exception at an ultravisor call (b9a4) is an error of the host",
            "explain the lines above; report them to the distribution",
        ),
    ),
)
_INIT_KILLED = re.compile(r"Attempted to kill init! exitcode=0x(?P<code>[0-9a-f]{1,8})")
_UNKNOWN_PANIC = Meaning(
    "the guest's kernel stopped itself",
    "the reason is in the line",
    "look at the lines above it; explain them",
)


def _panic(match: re.Match[str]) -> Meaning:
    reason = match["reason"].strip()
    if killed := _INIT_KILLED.search(reason):
        return _init_killed(int(killed["code"], 16))
    known = (meaning for fragment, meaning in _PANICS if fragment.lower() in reason.lower())
    return next(
        known, Meaning(f"the guest's kernel stopped itself: {reason}", _UNKNOWN_PANIC.cause, _UNKNOWN_PANIC.remedy)
    )


PANIC = Message(
    "PANIC",
    GUEST,
    "Kernel panic - not syncing",
    _UNKNOWN_PANIC,
    values=re.compile(r"Kernel panic - not syncing: (?P<reason>[^\r\n]{1,200})"),
    refine=_panic,
)
NO_ROOM = Message(
    "NO_ROOM",
    _DECOMPRESSOR,
    "Out of memory allocating … bytes … aligned in range",
    Meaning("the guest has too little memory for the kernel to unpack itself", _SMALL, _MORE),
    values=re.compile(r"Out of memory allocating (?P<size>[0-9a-f]{1,16}) bytes"),
)


def _fault(match: re.Match[str]) -> Meaning:
    code = int(match["code"], 16)
    if code == ProgramCode.ADDRESSING:
        return dataclasses.replace(NO_ROOM.meaning, cause=f"it came to the end of the memory: {_SMALL}")
    return FAULT.meaning


END_OF_MEMORY = re.compile(r"Kernel fault: interruption code 0005")
"""A fault of the decompressor where the memory ends."""
FAULT = Message(
    "BOOT_FAULT",
    _DECOMPRESSOR,
    "Kernel fault: interruption code",
    Meaning(
        "the kernel ran into a program interruption before it unpacked itself",
        "too little memory, a kernel file that was damaged before the image was built, or a CPU that lacks something",
        f"explain the code: zseal explain 'pgm CODE'; {_MORE}; zseal inspect KERNEL",
    ),
    values=re.compile(r"Kernel fault: interruption code (?P<code>[0-9a-f]{1,4})"),
    refine=_fault,
)
CORRUPT = Message(
    "CORRUPT_KERNEL",
    _DECOMPRESSOR,
    "-compressed data is corrupt",
    Meaning(
        "the kernel cannot unpack itself",
        "too little memory, or a kernel file that was damaged before the image was built",
        f"{_MORE}; zseal inspect KERNEL; build the image again",
    ),
)
HALTED = Message(
    "HALTED",
    _DECOMPRESSOR,
    "-- System halted",
    Meaning(
        "the kernel stopped before it unpacked itself",
        "the line above says why",
        "explain that line; if there is none, give the guest more memory",
    ),
    Role.CONSEQUENCE,
)
RAMDISK_DAMAGED = Message(
    "RAMDISK_DAMAGED",
    GUEST,
    "Initramfs unpacking failed",
    Meaning(
        "the kernel cannot unpack its ramdisk",
        "the ramdisk does not fit into memory, is cut off, or is compressed in a way this kernel does not know",
        "give the guest more memory; zseal inspect RAMDISK",
    ),
)
MESSAGES = (
    PANIC,
    NO_ROOM,
    FAULT,
    CORRUPT,
    HALTED,
    RAMDISK_DAMAGED,
    Message(
        "NEWER_MACHINE",
        GUEST,
        "The Linux kernel requires more recent processor hardware",
        Meaning(
            "the kernel is built for a newer machine than the guest's CPU",
            "the line with Missing facilities names what the CPU lacks",
            "explain that line",
        ),
        Role.CONSEQUENCE,
    ),
    Message(
        "PROBE_FAILED",
        GUEST,
        "virtio_…: probe of virtio… failed with error -19",
        Meaning(
            "a driver refused its virtio device (-19: no such device)",
            "the device comes without iommu_platform (VIRTIO_F_ACCESS_PLATFORM), which a protected guest insists on",
            "write <driver iommu='on'/> or use <launchSecurity> (zseal domain lint, zseal domain fix)",
        ),
    ),
    Message(
        "PROBE_FAILED_NEWER",
        GUEST,
        "virtio_… virtio…: probe with driver … failed with error -19",
        Meaning(
            "a driver refused its virtio device (-19: no such device)",
            "the device comes without iommu_platform (VIRTIO_F_ACCESS_PLATFORM), which a protected guest insists on",
            "write <driver iommu='on'/> or use <launchSecurity> (zseal domain lint, zseal domain fix)",
        ),
    ),
    Message(
        "ROOT_UNKNOWN",
        GUEST,
        "VFS: Cannot open root device",
        Meaning("the kernel does not find its root disk", ROOT_UNREACHABLE, LOOK_FOR_ROOT),
    ),
    Message(
        "INIT_FAILED",
        GUEST,
        "Failed to execute /",
        Meaning(
            "the kernel cannot start the first program",
            "the file is missing, not executable, not an s390x program, or its interpreter is missing",
            "check the ramdisk or disk: file /init must say S/390; error -2 is a missing file, -8 another format",
        ),
    ),
    Message(
        "OOM",
        GUEST,
        "Out of memory: Killed process",
        Meaning("the guest ran out of memory and ended a program", _SMALL, _MORE),
    ),
    Message(
        "MACHINE_CHECK",
        GUEST,
        "System stopped due to unrecoverable machine check",
        Meaning(
            "a machine check reported a fault after which the guest cannot go on",
            "on hardware a defect; in a virtual machine the CPU model lacks something that the handler needs",
            "in a virtual machine use the CPU model host-model (zseal run: -- -cpu max); on hardware call support",
        ),
        values=re.compile(r"machine check, code: 0x(?P<code>[0-9a-fA-F]{1,16})"),
    ),
)

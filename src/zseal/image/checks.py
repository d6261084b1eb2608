"""Checks of kernel, ramdisk and command line before anything is written: those of pvimg, and a few more."""

from __future__ import annotations

from zseal.errors import InputError
from zseal.image.source import SourceStream
from zseal.linux import kernel_file

# the largest CONFIG_COMMAND_LINE_SIZE that Linux can be built with on s390
MAX_COMMAND_LINE = 1 << 20


def check_kernel(kernel: SourceStream) -> int:
    """Refuse a file that is not an s390x kernel; return its longest command line in bytes, including the NUL."""
    head = kernel.peek(kernel_file.MIN_SIZE)
    if head.startswith(kernel_file.ELF_MAGIC):
        raise InputError(
            "the kernel is an ELF file",
            where=kernel.where,
            hint="use the raw kernel, arch/s390/boot/bzImage or vmlinuz",
        )
    if len(head) < kernel_file.MIN_SIZE:
        raise InputError(
            f"not an s390x kernel: it has less than {kernel_file.MIN_SIZE} bytes", where=kernel.where, hint=_KERNEL_HINT
        )
    if not head.startswith(kernel_file.MAGIC, kernel_file.MAGIC_OFFSET):
        raise InputError(
            f"not an s390x kernel: it has no S390EP at offset {kernel_file.MAGIC_OFFSET:#x}",
            where=kernel.where,
            hint=_KERNEL_HINT,
        )
    return kernel_file.max_command_line(head)


_KERNEL_HINT = "give a raw s390x Linux kernel, usually named vmlinuz or bzImage"


def check_ramdisk(ramdisk: SourceStream) -> None:
    """Refuse an empty ramdisk: the kernel would wait for a root file system that never comes."""
    if not ramdisk.peek(1):
        raise InputError("the ramdisk is empty", where=ramdisk.where)


def read_command_line(parmfile: SourceStream) -> bytes:
    """Return the command line as stored in an image: a NUL is appended unless it already ends in one.

    A newline at the end is part of it. Raises InputError if it is too long for any kernel.
    """
    text = parmfile.peek(MAX_COMMAND_LINE + 1)
    if len(text) > MAX_COMMAND_LINE:
        raise InputError(f"not a parmfile: it has more than {MAX_COMMAND_LINE} bytes", where=parmfile.where)
    return text if text.endswith(b"\0") else text + b"\0"


def check_command_line(stored: bytes, limit: int, where: str | None) -> None:
    """Refuse a command line that is too long for the kernel."""
    if len(stored) > limit:
        raise InputError(
            f"the command line is too long: {len(stored)} bytes with its NUL, this kernel takes {limit}", where=where
        )

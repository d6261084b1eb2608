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


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_CONTROLS = bytes({*range(1, 32), 127} - set(b"\t\n\v\f\r"))


def check_command_line(stored: bytes, limit: int, where: str | None) -> None:
    """Refuse a command line that is not text, or too long for the kernel."""
    text = stored.rstrip(b"\0")
    if text.startswith(_UTF16_MARKS):
        raise InputError(
            "the parmfile is UTF-16 text, of which the kernel reads one character",
            where=where,
            hint="save it as ASCII or UTF-8",
        )
    if text.translate(None, _CONTROLS) != text:
        raise InputError(
            "the parmfile is not text: it has control characters",
            where=where,
            hint="give the file with the kernel parameters",
        )
    if b"\0" in text:
        raise InputError(
            f"the parmfile has a NUL at byte {text.index(0)}: the kernel reads nothing after it",
            where=where,
            hint="remove it",
        )
    if len(stored) > limit:
        raise InputError(
            f"the command line is too long: {len(stored)} bytes with its NUL, this kernel takes {limit}", where=where
        )


def command_line_warnings(stored: bytes, where: str | None) -> tuple[str, ...]:
    """Return what is odd about a command line that the kernel can use."""
    if stored.startswith(_BYTE_ORDER_MARK):
        begins = "begins with a UTF-8 byte order mark, which the kernel takes for part of the first parameter"
        return (f"{where or 'the parmfile'} {begins}",)
    return ()

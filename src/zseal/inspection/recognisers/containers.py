"""Ramdisks, disk images, and pages that a guest's host wrote out."""

from __future__ import annotations

import bz2
import contextlib
import lzma
import zlib
from collections.abc import Callable

from zseal.errors import FormatError
from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value

_CPIO = (b"070701", b"070702", b"070707")
_PEEK = 4096
# compressed ramdisks that Linux accepts: magic, name, and the first bytes inside if Python can decompress them


def _gunzip(data: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(data, _PEEK)


def _unxz(data: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=1 << 28).decompress(data, _PEEK)


def _bunzip2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, _PEEK)


_COMPRESSIONS: tuple[tuple[bytes, str, Callable[[bytes], bytes] | None], ...] = (
    (b"\x1f\x8b\x08", "gzip", _gunzip),
    (b"\xfd7zXZ\0", "xz", _unxz),
    (b"BZh", "bzip2", _bunzip2),
    (b"]\0\0", "lzma", _unxz),
    (b"(\xb5/\xfd", "zstd", None),
    (b"\x02!L\x18", "lz4", None),
    (b'\x04"M\x18', "lz4 frame", None),
    (b"\x89LZO\0\r\n\x1a\n", "lzo", None),
)


class Ramdisk(Recogniser):
    """A cpio archive, plain or compressed."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check the magic, also inside the compression if Python can decompress it."""
        head = sample.head
        if head.startswith(_CPIO):
            return self._describe(sample, {"size": sample.size, "compression": None, "archive": "cpio"})
        for magic, name, decompress in _COMPRESSIONS:
            if not head.startswith(magic):
                continue
            inside = b""
            if decompress is not None:
                with contextlib.suppress(zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
                    inside = decompress(head)
                if not inside:
                    continue
                if not inside.startswith(_CPIO):
                    return Description(
                        "compressed", f"data compressed with {name}, not a cpio archive", {"size": sample.size}
                    )
            archive = "cpio" if inside else "not checked: it needs another decompressor"
            return self._describe(sample, {"size": sample.size, "compression": name, "archive": archive})
        return None

    @staticmethod
    def _describe(sample: Sample, fields: dict[str, Value]) -> Description:
        title = (
            "ramdisk"
            if fields["archive"] == "cpio"
            else f"data compressed with {fields['compression']}, perhaps a ramdisk"
        )
        return Description(
            "ramdisk",
            title,
            fields,
            (),
            (sample.command("zseal image create -i KERNEL -r {file} -p PARMFILE -k DOCUMENT -o IMAGE"),),
        )


class DiskImage(Recogniser):
    """A qcow2 disk: it may contain a sealed image, but is not one itself."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check the magic."""
        if not sample.head.startswith(b"QFI\xfb") or len(sample.head) < 32:
            return None
        return Description(
            "qcow2",
            "disk image in QEMU's format",
            {
                "size": sample.size,
                "version": int.from_bytes(sample.head[4:8], "big"),
                "virtual_size": int.from_bytes(sample.head[24:32], "big"),
            },
            next_steps=(sample.command("zseal image info {file}"),),
        )


class PageFile(Recogniser):
    """A file of zseal guest page-out: exported pages, which only their guest can take back."""

    def recognise(self, sample: Sample) -> Description | None:
        """Read its header."""
        # imported late: it brings numpy
        from zseal.guest.paging.page_file import HEADER_SIZE, MAGIC, RECORD_SIZE, PageFileHeader

        if not sample.head.startswith(MAGIC):
            return None
        title = "pages of a protected guest, encrypted, on the host's disk"
        try:
            header = PageFileHeader.unpack(sample.head)
        except FormatError as error:
            return Description("page-file", f"{title}, damaged", {"size": sample.size}, (error.message,))
        missing = HEADER_SIZE + RECORD_SIZE * header.count - sample.size
        problems = (f"it should have {missing} bytes more",) if missing > 0 else ()
        return Description("page-file", title, {"size": sample.size, "pages": header.count}, problems)


RECOGNISERS: tuple[Recogniser, ...] = (DiskImage(), PageFile(), Ramdisk())

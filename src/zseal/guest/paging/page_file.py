"""The file in which pages of a guest wait while they are out: ciphertext, and the page of each piece.

All numbers are big endian. A header of 64 bytes: ``zsealPGS``, version (4 bytes, 1), page size (4 bytes, 4096), a
unique identifier of 16 random bytes, number of records (8 bytes), 24 bytes of zeros. Then the records, 4104 bytes each:
page index (8 bytes; guest absolute address / 4096) and the 4096 bytes of its export.

Nothing in the file is trusted. The writer remembers which record contains which page, and the ultravisor decides
whether the data is what left the guest.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import stat
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from zseal.arch.storage import PAGE_SIZE
from zseal.errors import FormatError, InputError

MAGIC = b"zsealPGS"
VERSION = 1
IDENTIFIER_SIZE = 16
_HEADER = struct.Struct(">8sII16sQ24x")
HEADER_SIZE = _HEADER.size
_RECORD = np.dtype([("page", ">u8"), ("data", f"V{PAGE_SIZE}")])
RECORD_SIZE = _RECORD.itemsize

Pages = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class PageFileHeader:
    """The header of a page file."""

    identifier: bytes
    count: int

    @classmethod
    def new(cls, count: int) -> PageFileHeader:
        """Return the header of a new file for ``count`` pages."""
        return cls(secrets.token_bytes(IDENTIFIER_SIZE), count)

    def pack(self) -> bytes:
        """Return the 64 bytes."""
        return _HEADER.pack(MAGIC, VERSION, PAGE_SIZE, self.identifier, self.count)

    @classmethod
    def unpack(cls, data: bytes) -> PageFileHeader:
        """Return the header in ``data``; raises FormatError if there is none."""
        if len(data) < HEADER_SIZE or not data.startswith(MAGIC):
            raise FormatError("this is not a page file of zseal guest page-out")
        _, version, page_size, identifier, count = _HEADER.unpack_from(data)
        if version != VERSION or page_size != PAGE_SIZE:
            raise FormatError(f"a page file of version {version} with pages of {page_size} bytes cannot be read")
        return cls(identifier, count)


def pack_records(pages: Pages, data: bytes) -> bytes:
    """Return the records of ``pages``, whose joined content is ``data``."""
    block = np.empty(len(pages), _RECORD)
    block["page"] = pages
    block["data"] = np.frombuffer(data, _RECORD["data"])
    return block.tobytes()


def open_page_file(path: Path) -> BinaryIO:
    """Open ``path`` for reading; raises InputError if it is not an ordinary file or cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"cannot read the page file: {error.strerror}", where=str(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("a page file must be an ordinary file", where=str(path))
    return os.fdopen(descriptor, "rb", buffering=0)


def read_pages(stream: BinaryIO, first: int, count: int) -> bytes:
    """Return the joined data of ``count`` records from number ``first`` on, zeros where the file ends too early."""
    wanted = count * RECORD_SIZE
    found = os.pread(stream.fileno(), wanted, HEADER_SIZE + first * RECORD_SIZE).ljust(wanted, b"\0")
    return np.frombuffer(found, _RECORD)["data"].tobytes()

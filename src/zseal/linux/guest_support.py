"""Whether a Linux kernel was built to run as a protected guest, as far as its file shows it.

Until Linux 6.9 that was the option CONFIG_PROTECTED_VIRTUALIZATION_GUEST; since 6.10 every s390x kernel has the code.
The release is readable in the loader part of the kernel file; the options are in the config file next to it, or in the
kernel itself if it was built with CONFIG_IKCONFIG.
"""

from __future__ import annotations

import bz2
import dataclasses
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from zseal.errors import InputError
from zseal.files import read_limited
from zseal.linux.kernel_file import ELF_MAGIC, MAGIC, MAGIC_OFFSET

MAX_KERNEL_SIZE = 256 << 20
MAX_PAYLOAD_SIZE = 512 << 20
MAX_CONFIG_SIZE = 4 << 20
ALWAYS_SINCE = (6, 10)
NEVER_BEFORE = (5, 3)

# "6.12.107+deb13-s390x (user@host)", as in the loader part
_RELEASE = re.compile(rb"(?<![\d.])((\d{1,2})\.(\d{1,3})\.\d{1,5}[\w.+~-]{0,80}) \([^\s@()]{1,64}@[^\s()]{1,64}\)")
_OPTION = re.compile(rb"^(?:# )?CONFIG_PROTECTED_VIRTUALIZATION_GUEST(?:=(y)| is not set)", re.MULTILINE)
_EMBEDDED = re.compile(rb"IKCFG_ST(\x1f\x8b\x08.*?)IKCFG_ED", re.DOTALL)
_ATTEMPTS = 8


@dataclasses.dataclass(frozen=True)
class KernelSupport:
    """The verdict on a kernel: ``supported`` is None if it is not known; ``basis`` is the source of the verdict."""

    name: str
    release: str | None
    supported: bool | None
    basis: str


def _decompress(data: bytes, factory: object, start: int) -> bytes | None:
    decompressor = factory() if callable(factory) else None
    if decompressor is None:
        return None
    try:
        return bytes(decompressor.decompress(data[start:], MAX_PAYLOAD_SIZE))
    except (lzma.LZMAError, OSError, EOFError, ValueError, zlib.error):
        return None


def _payloads(data: bytes) -> Iterator[bytes]:
    """Yield what looks like the compressed kernel proper, decompressed (gzip, xz and bzip2; bounded)."""
    kinds = (
        (b"\x1f\x8b\x08", lambda: zlib.decompressobj(31)),
        (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 28)),
        (b"BZh9", bz2.BZ2Decompressor),
    )
    for magic, factory in kinds:
        start = data.find(magic, MAGIC_OFFSET)
        for _ in range(_ATTEMPTS):
            if start < 0:
                break
            payload = _decompress(data, factory, start)
            if payload is not None and len(payload) > 1 << 20:
                yield payload
                break
            start = data.find(magic, start + 1)


def _option(config: bytes) -> bool | None:
    match = _OPTION.search(config)
    return None if match is None else match[1] is not None


def _embedded_config(data: bytes) -> bytes | None:
    for content in (data, *_payloads(data)):
        match = _EMBEDDED.search(content)
        if match:
            return _decompress(match[1], lambda: zlib.decompressobj(31), 0)
    return None


def config_beside(kernel: Path) -> Path | None:
    """The config file that distributions install next to ``vmlinuz-RELEASE``, if it exists."""
    for prefix in ("vmlinuz-", "vmlinux-", "image-", "Image-", "bzImage-"):
        if kernel.name.startswith(prefix):
            config = kernel.with_name("config-" + kernel.name[len(prefix) :])
            return config if config.is_file() else None
    return kernel.with_name("config") if kernel.name == "vmlinuz" and kernel.with_name("config").is_file() else None


def kernel_support(kernel: Path, config: Path | None = None) -> KernelSupport:
    """Return whether the kernel file can run protected, from its release and its config.

    ``config`` is by default the one next to the kernel. Raises InputError for an unreadable file and for one that is
    not an s390x Linux kernel.
    """
    data = read_limited(kernel, MAX_KERNEL_SIZE, "kernel")
    name = str(kernel)
    raw = data[MAGIC_OFFSET : MAGIC_OFFSET + len(MAGIC)] == MAGIC
    if not raw and not (data.startswith(ELF_MAGIC) and data[18:20] == b"\0\x16"):
        raise InputError("not a Linux kernel for s390x", where=name, hint="give the vmlinuz that goes into the image")
    match = _RELEASE.search(data)
    release = match[1].decode() if match else None
    numbers = (int(match[2]), int(match[3])) if match else None
    config = config or config_beside(kernel)
    if config is not None:
        option = _option(read_limited(config, MAX_CONFIG_SIZE, "kernel config"))
        if option is not None:
            return KernelSupport(name, release, option, f"CONFIG_PROTECTED_VIRTUALIZATION_GUEST in {config.name}")
    if numbers is not None and numbers >= ALWAYS_SINCE:
        return KernelSupport(name, release, True, "every s390x kernel since 6.10 has the support built in")
    if numbers is not None and numbers < NEVER_BEFORE:
        return KernelSupport(name, release, False, "Linux has the support since 5.3")
    embedded = _embedded_config(data)
    option = _option(embedded) if embedded is not None else None
    if option is not None:
        return KernelSupport(name, release, option, "CONFIG_PROTECTED_VIRTUALIZATION_GUEST in the config it contains")
    return KernelSupport(name, release, None, "neither its release nor a config file shows it")

"""Builds a boot image in the layout of pvimg 2.36 and newer, byte for byte.

In the order of addresses: short PSW, metadata, stage3a, SE header, then the components kernel, ramdisk, command line
and stage3b (encrypted page by page), then the IPL parameter block. Components are streamed: memory does not grow with
them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.arch.psw import Psw
from zseal.arch.storage import PAGE_SIZE
from zseal.crypto.digests import DigestValues
from zseal.crypto.header import seal_header
from zseal.crypto.keyexchange import check_curve, key_hash, make_slot, public_coordinates
from zseal.crypto.xts import XtsPages
from zseal.errors import InputError
from zseal.files import atomic_output
from zseal.formats.image_layout import (
    INITIAL_PSW_MASK,
    MIN_HEADER_ADDRESS,
    STAGE3A_ADDRESS,
    STAGE3A_ENTRY,
    ComponentKind,
    Stage3aArguments,
    page_align,
)
from zseal.formats.image_metadata import OFFSET as METADATA_OFFSET
from zseal.formats.image_metadata import ImageMetadata
from zseal.formats.ipib import Ipib
from zseal.formats.se_header import (
    MAX_KEY_SLOTS,
    FixedPart,
    PlainFlags,
    SecretArea,
    SecretFlags,
    SeHeader,
    header_size,
)
from zseal.image import stage3b
from zseal.image.bootloaders import Bootloaders
from zseal.image.checks import (
    check_command_line,
    check_kernel,
    check_ramdisk,
    command_line_warnings,
    read_command_line,
)
from zseal.image.controls import Controls
from zseal.image.keys import ImageKeys
from zseal.image.model import Component, Progress
from zseal.image.pipeline import CHUNK, PagePipeline
from zseal.image.source import Source, SourceStream, is_path, open_source
from zseal.logs import logger

_LOG = logger(__name__)

DEFAULT_FLAGS = Controls().plain_flags
"""The default plaintext control flags of an image: those of :class:`Controls`."""


@dataclasses.dataclass(frozen=True)
class BuiltImage:
    """The image that was written. All addresses are file offsets as well."""

    header: SeHeader
    header_address: int
    ipib: Ipib
    ipib_address: int
    components: tuple[Component, ...]
    size: int
    """Bytes of the image."""
    warnings: tuple[str, ...] = ()
    """What its builder may not have wanted."""


def build_image(
    output: str | Path | BinaryIO,
    *,
    kernel: Source,
    ramdisk: Source | None = None,
    cmdline: Source | None = None,
    host_keys: Sequence[ec.EllipticCurvePublicKey],
    keys: ImageKeys | None = None,
    flags: int = DEFAULT_FLAGS,
    secret_flags: int = 0,
    bootloaders: Bootloaders | None = None,
    start_address: int | None = None,
    check_components: bool = True,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> BuiltImage:
    """Seal a kernel, a ramdisk and a command line into a boot image that only the owners of ``host_keys`` can open.

    ``output`` is a path, written whole or not at all with mode 0600, or a writable and seekable binary file object.
    ``kernel``, ``ramdisk`` and ``cmdline`` are paths, contents (bytes) or binary file objects. ``host_keys`` are 1 to
    95 different public keys on P-521. ``keys`` are the image's own random values (default: new ones); ``flags`` is the
    64-bit word of :class:`PlainFlags`, ``secret_flags`` that of :class:`SecretFlags`. ``bootloaders`` default to ours.
    ``start_address`` replaces the address of stage3b as the guest's start address. ``check_components`` refuses a file
    that is not a kernel, a command line too long for the kernel and an empty ramdisk.

    Raises InputError for inputs and keys that cannot be used, OutputError if the output cannot be written or exists.
    """
    _LOG.info("sealing an image for %d host keys", len(host_keys))
    keys = keys or ImageKeys.generate()
    bootloaders = bootloaders or Bootloaders.default()
    _check_host_keys(host_keys)
    with contextlib.ExitStack() as stack:
        kernel_stream = stack.enter_context(open_source(kernel, "kernel"))
        ramdisk_stream = None if ramdisk is None else stack.enter_context(open_source(ramdisk, "ramdisk"))
        parmfile = None if cmdline is None else stack.enter_context(open_source(cmdline, "parmfile"))
        command_line = _checked_inputs(kernel_stream, ramdisk_stream, parmfile, check=check_components)
        odd = command_line if check_components else None
        warnings = () if odd is None or parmfile is None else command_line_warnings(odd, parmfile.where)
        if is_path(output):
            target = stack.enter_context(atomic_output(Path(str(output)), overwrite=overwrite))
        else:
            target = output  # type: ignore[assignment]  # no path, as just asked
        slots = tuple(make_slot(keys.customer_key, host, keys.header_key) for host in host_keys)
        layout = _Layout.plan(bootloaders, len(slots))
        sizes = [kernel_stream.size, ramdisk_stream.size if ramdisk_stream else 0]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        target.seek(layout.components)
        with PagePipeline() as pipeline:
            writer = _ComponentWriter(target, pipeline, layout.components, keys, flags, progress, total)
            writer.add(ComponentKind.KERNEL, kernel_stream)
            if ramdisk_stream:
                writer.add(ComponentKind.RAMDISK, ramdisk_stream)
            if command_line is not None:
                writer.add_bytes(ComponentKind.CMDLINE, command_line)
            writer.add_bytes(ComponentKind.STAGE3B, stage3b.render(bootloaders.stage3b, writer.components))
            digests = pipeline.values()
        components = tuple(writer.components)
        for part in components:
            _LOG.debug("%s: %d bytes at %#x", part.name, part.size, part.address)
        area = SecretArea(
            cck=keys.cck,
            image_key=keys.image_key,
            psw_mask=INITIAL_PSW_MASK,
            psw_address=components[-1].address if start_address is None else start_address,
            scf=SecretFlags(secret_flags),
        )
        header = seal_header(_fixed_part(keys, flags, digests), slots, area, keys.header_key)
        built = _write_frame(target, layout, bootloaders, header, components)
        return dataclasses.replace(built, warnings=warnings)


def _check_host_keys(host_keys: Sequence[ec.EllipticCurvePublicKey]) -> None:
    if not host_keys:
        raise InputError("an image needs at least one host key")
    if len(host_keys) > MAX_KEY_SLOTS:
        raise InputError(f"{len(host_keys)} host keys are too many: an SE header has room for {MAX_KEY_SLOTS}")
    seen: dict[bytes, int] = {}
    for number, key in enumerate(host_keys, 1):
        check_curve(key)
        phkh = key_hash(key)
        if phkh in seen:
            raise InputError(
                f"host keys {seen[phkh]} and {number} are the same (hash {phkh.hex()[:16]}…)",
                hint="give every host key once",
            )
        seen[phkh] = number


def _checked_inputs(
    kernel: SourceStream, ramdisk: SourceStream | None, parmfile: SourceStream | None, *, check: bool
) -> bytes | None:
    command_line = None if parmfile is None else read_command_line(parmfile)
    if check:
        limit = check_kernel(kernel)
        if ramdisk:
            check_ramdisk(ramdisk)
        if parmfile and command_line is not None:
            check_command_line(command_line, limit, parmfile.where)
    return command_line


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Addresses that are known before anything is read."""

    header: int
    components: int

    @classmethod
    def plan(cls, bootloaders: Bootloaders, slots: int) -> _Layout:
        header = max(page_align(STAGE3A_ADDRESS + len(bootloaders.stage3a)), MIN_HEADER_ADDRESS)
        return cls(header, page_align(header + header_size(slots)))


class _ComponentWriter:
    """Encrypts, digests and writes one component after the other."""

    def __init__(
        self,
        target: BinaryIO,
        pipeline: PagePipeline,
        address: int,
        keys: ImageKeys,
        flags: int,
        progress: Progress | None,
        total: int | None,
    ) -> None:
        self.components: list[Component] = []
        self._target = target
        self._pipeline = pipeline
        self._address = address
        self._keys = keys
        self._xts = XtsPages(keys.image_key)
        self._encrypt = not flags & PlainFlags.NO_COMPONENT_ENCRYPTION
        self._plain = bytearray(CHUNK)
        self._progress = progress
        self._done, self._total = 0, total

    def add_bytes(self, kind: ComponentKind, content: bytes) -> None:
        self.add(kind, SourceStream(io.BytesIO(content), kind.value, None, len(content)))

    def add(self, kind: ComponentKind, source: SourceStream) -> None:
        """Add a component, padded with zeros to whole pages; an empty one becomes one page of zeros."""
        prefix = self._keys.tweak_prefix(kind)
        original = offset = 0
        while True:
            buffer = self._pipeline.buffer()
            plain = memoryview(self._plain if self._encrypt else buffer)
            count = source.read_into(plain)
            if not count and offset:
                break
            size = page_align(count) or PAGE_SIZE
            plain[count:size] = bytes(size - count)
            stored = plain[:size]
            if self._encrypt:
                stored = memoryview(
                    self._xts.encrypt_run(stored, prefix, offset, out=buffer if size == CHUNK else None)
                )
            self._pipeline.digest(stored, self._address + offset, prefix, offset)
            self._pipeline.write(self._target, stored)
            original += count
            offset += size
            self._tell(count)
            if count < CHUNK:
                break
        self.components.append(Component(kind, prefix, self._address, offset, original))
        self._address += offset

    def _tell(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(self._done, self._total)


def _fixed_part(keys: ImageKeys, flags: int, digests: DigestValues) -> FixedPart:
    return FixedPart(
        iv=keys.iv,
        nep=digests.nep,
        pcf=flags,
        customer_key=public_coordinates(keys.customer_key.public_key()),
        pld=digests.pld,
        ald=digests.ald,
        tld=digests.tld,
    )


def _write_frame(
    target: BinaryIO, layout: _Layout, bootloaders: Bootloaders, header: SeHeader, components: tuple[Component, ...]
) -> BuiltImage:
    """Write everything around the components, which loaders and hypervisors read."""
    ipib_address = components[-1].address + components[-1].size
    ipib = Ipib.build(
        header_address=layout.header,
        header_size=header.size,
        components=[component.to_ipib() for component in components],
    )
    arguments_address = STAGE3A_ADDRESS + len(bootloaders.stage3a) - Stage3aArguments.SIZE
    arguments = Stage3aArguments(
        header_offset=layout.header - arguments_address,
        header_size=header.size,
        ipib_offset=ipib_address - arguments_address,
    )
    parts = {
        0: Psw(INITIAL_PSW_MASK, STAGE3A_ENTRY).to_short().to_bytes(8, "big"),
        METADATA_OFFSET: ImageMetadata(header_offset=layout.header, ipib_offset=ipib_address).pack(),
        STAGE3A_ADDRESS: bootloaders.stage3a[: -Stage3aArguments.SIZE] + arguments.pack(),
        layout.header: header.pack(),
        ipib_address: ipib.pack(),
    }
    for address, data in parts.items():
        target.seek(address)
        target.write(data)
    return BuiltImage(
        header=header,
        header_address=layout.header,
        ipib=ipib,
        ipib_address=ipib_address,
        components=components,
        size=ipib_address + ipib.header.length,
    )

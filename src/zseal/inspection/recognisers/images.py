"""Boot images, bare SE headers and IPL parameter blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.arch.storage import PAGE_SIZE
from zseal.errors import FormatError, ZsealError
from zseal.formats.image_layout import Stage3aArguments, Stage3bArguments, classify_prefix
from zseal.formats.image_metadata import MAGIC as METADATA_MAGIC
from zseal.formats.image_metadata import OFFSET as METADATA_OFFSET
from zseal.formats.ipib import MAX_LENGTH, MIN_LENGTH, Ipib
from zseal.formats.se_header import MAGIC, PlainFlags, SeHeader
from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value

if TYPE_CHECKING:
    from zseal.image.read import Image


def flag_names(flags: PlainFlags) -> tuple[str, ...]:
    """Return the plaintext control flags by name, unknown bits by number."""
    names = [str(flag.name).lower().replace("_", "-") for flag in PlainFlags if flag in flags]
    unknown = flags.value & ~PlainFlags.known().value
    return (*names, *(f"bit {bit}" for bit in range(64) if unknown >> (63 - bit) & 1))


def _header_fields(header: SeHeader) -> dict[str, Value]:
    return {
        "header_version": f"{header.version:#x}",
        "header_size": header.size,
        "key_slots": len(header.slots),
        "host_key_hashes": tuple(slot.phkh.hex() for slot in header.slots),
        "plaintext_control_flags": flag_names(header.pcf),
        "encrypted_pages": header.fixed.nep,
    }


def _component_lines(ipib: Ipib) -> tuple[str, ...]:
    lines = []
    for listed in ipib.components:
        known = classify_prefix(listed.tweak_prefix)
        name = known[0].value if known else "component"
        lines.append(f"{name} at {listed.address:#x}, {listed.size} bytes")
    return tuple(lines)


class BootImage(Recogniser):
    """An image or a bare header: a file with an SE header where pvimg looks for one."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check for metadata at 0xc000, and for the header's magic on the first 21 pages."""
        head = sample.head
        bare = head.startswith(MAGIC)
        metadata = head[METADATA_OFFSET:].startswith(METADATA_MAGIC)
        if not metadata and not any(head.startswith(MAGIC, at) for at in range(0, len(head), PAGE_SIZE)):
            return None
        kind, title = ("se-header", "Secure Execution header") if bare else ("se-image", "Secure Execution boot image")
        # imported late: it brings numpy
        from zseal.image.read import read_image

        try:
            image = read_image(sample.path)
        except ZsealError as error:
            message = error.message
            return Description(kind, f"{title}, damaged", {"size": sample.size}, (message,))
        return self._describe(sample, image, kind, title)

    @staticmethod
    def _describe(sample: Sample, image: Image, kind: str, title: str) -> Description:
        fields: dict[str, Value] = {"size": sample.size, "header_offset": image.header_offset}
        fields |= _header_fields(image.header)
        steps = [sample.command("zseal image info {file}"), sample.command("zseal image test {file} -k DOCUMENT")]
        problems = []
        if image.ipib is not None:
            fields["dialect"] = image.dialect.value if image.dialect else None
            fields["bootloader"] = image.stage3a.owner if image.stage3a else None
            fields["components"] = _component_lines(image.ipib)
            steps += [
                sample.command("zseal image verify {file} --machine DIR"),
                sample.command("zseal run {file} --machine DIR"),
            ]
            if missing := image.missing_bytes():
                problems.append(f"the file ends {missing} bytes before its last component does")
        elif kind == "se-image":
            problems.append("no IPL parameter block was found, so the components are not known")
        return Description(kind, title, fields, tuple(problems), tuple(steps))


class ParameterBlock(Recogniser):
    """An IPL parameter block of type 5, extracted from an image or from guest memory."""

    def recognise(self, sample: Sample) -> Description | None:
        """Read it as QEMU does, from a file of at most its largest size."""
        if not MIN_LENGTH <= sample.size <= MAX_LENGTH:
            return None
        try:
            ipib = Ipib.parse(sample.head)
        except FormatError:
            return None
        return Description(
            "ipib",
            "IPL parameter block of a protected guest",
            {
                "size": sample.size,
                "length": ipib.header.length,
                "version": ipib.header.pv_version,
                "header_address": f"{ipib.header.header_address:#x}",
                "header_size": ipib.header.header_size,
                "components": _component_lines(ipib),
            },
        )


class Bootloader(Recogniser):
    """The bootloaders that zseal puts into images, as separate files."""

    def recognise(self, sample: Sample) -> Description | None:
        """Compare it, except its arguments, with those of this version."""
        # imported late: it reads the package's files
        from zseal.image.bootloaders import Bootloaders

        ours = Bootloaders.default()
        for title, blob, arguments in (
            ("stage3a, the plain bootloader of boot images", ours.stage3a, Stage3aArguments.SIZE),
            ("stage3b, the encrypted bootloader of boot images", ours.stage3b, Stage3bArguments.SIZE),
        ):
            if sample.size == len(blob) and sample.head.startswith(blob[:-arguments]):
                filled_in = any(sample.head[-arguments:])
                return Description("bootloader", title, {"size": sample.size, "arguments_filled_in": filled_in})
        return None


RECOGNISERS: tuple[Recogniser, ...] = (BootImage(), ParameterBlock(), Bootloader())

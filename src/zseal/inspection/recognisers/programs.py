"""Kernels, other ELF files, and dumps of guests."""

from __future__ import annotations

from zseal.errors import FormatError, ZsealError
from zseal.formats.layout import Layout, raw, u16, u32, u64
from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value
from zseal.linux.kernel_file import ELF_MAGIC, MAGIC, MAGIC_OFFSET, MIN_SIZE, max_command_line


class RawKernel(Recogniser):
    """A raw kernel: arch/s390/boot/bzImage, which distributions call vmlinuz."""

    def recognise(self, sample: Sample) -> Description | None:
        """Check for the magic that loaders check."""
        if not sample.head.startswith(MAGIC, MAGIC_OFFSET) or len(sample.head) < MIN_SIZE:
            return None
        limit = max_command_line(sample.head)
        fields: dict[str, Value] = {"size": sample.size}
        problems = []
        # imported late: it brings three decompressors
        from zseal.linux.guest_support import kernel_support

        try:
            support = kernel_support(sample.path)
            fields["release"] = support.release
            fields["protected_guest_support"] = support.supported
            fields["known_from"] = support.basis
            if support.supported is False:
                problems.append("this kernel cannot run as a protected guest")
        except ZsealError as error:
            problems.append(error.message)
        fields["max_command_line"] = limit - 1
        return Description(
            "s390x-kernel",
            "Linux kernel for s390x, raw as boot images need it",
            fields,
            tuple(problems),
            (sample.command("zseal image create -i {file} -r RAMDISK -p PARMFILE -k DOCUMENT -o IMAGE"),),
        )


class ElfHeader(Layout, size=64):
    """The header of a big-endian 64-bit ELF file (System V ABI)."""

    identification: bytes = raw(0x00, 16, "magic, class, byte order, version")
    type: int = u16(0x10, "1 relocatable, 2 executable, 3 shared, 4 core")
    machine: int = u16(0x12, "22 = S/390")
    entry: int = u64(0x18, "entry address")
    section_offset: int = u64(0x28, "file offset of the section headers")
    program_count: int = u16(0x38, "number of program headers")
    section_size: int = u16(0x3A, "size of a section header")
    section_count: int = u16(0x3C, "number of section headers")
    names_index: int = u16(0x3E, "index of the section with the section names")


class SectionHeader(Layout, size=64):
    """A section header of such a file."""

    name: int = u32(0x00, "offset of the name in the section of names")
    type: int = u32(0x04)
    offset: int = u64(0x18, "file offset")
    size: int = u64(0x20, "bytes")


_BIG_64 = b"\x7fELF\x02\x02"
_S390 = 22
_CORE = 4
_TYPES = {1: "relocatable", 2: "executable", 3: "shared object", _CORE: "core"}
_MACHINES = {
    3: "x86",
    20: "PowerPC",
    21: "PowerPC 64",
    _S390: "s390x",
    40: "ARM",
    62: "x86_64",
    183: "AArch64",
    243: "RISC-V",
}
_MAX_SECTIONS = 4096
_MAX_NAMES = 1 << 20
_DUMP_SECTION = "pv_compl"


def _section_names(sample: Sample, header: ElfHeader) -> frozenset[str]:
    count = min(header.section_count, _MAX_SECTIONS)
    if header.section_size != SectionHeader.SIZE or not count:
        return frozenset()
    table = sample.read(header.section_offset, count * SectionHeader.SIZE)
    sections = [
        SectionHeader.unpack(table, at) for at in range(0, len(table) - SectionHeader.SIZE + 1, SectionHeader.SIZE)
    ]
    if header.names_index >= len(sections):
        return frozenset()
    names = sections[header.names_index]
    text = sample.read(names.offset, min(names.size, _MAX_NAMES))
    return frozenset(
        text[section.name : section.name + 64].split(b"\0", 1)[0].decode("latin-1") for section in sections
    )


class Elf(Recogniser):
    """Any ELF file; dumps of protected guests are recognised by their section pv_compl."""

    def recognise(self, sample: Sample) -> Description | None:
        """Read the header, and for s390x the names of the sections."""
        head = sample.head
        if not head.startswith(ELF_MAGIC) or len(head) < 20:
            return None
        order = "little" if head[5] == 1 else "big"
        machine = int.from_bytes(head[18:20], order)  # type: ignore[arg-type]  # one of the two words that fit
        kind = int.from_bytes(head[16:18], order)  # type: ignore[arg-type]  # as above
        fields: dict[str, Value] = {
            "size": sample.size,
            "machine": _MACHINES.get(machine, f"machine {machine}"),
            "type": _TYPES.get(kind, f"type {kind}"),
            "bits": 64 if head[4] == 2 else 32,
        }
        if not head.startswith(_BIG_64) or machine != _S390:
            return Description("elf", "ELF file of an architecture other than s390x", fields)
        try:
            header = ElfHeader.unpack(head)
            sections = _section_names(sample, header)
        except FormatError as error:
            return Description("elf", "ELF file for s390x, damaged", fields, (error.message,))
        if kind == _CORE and _DUMP_SECTION in sections:
            fields["storage_state"] = "pv_mem_meta" in sections
            return Description(
                "guest-dump",
                "dump of a protected guest; its memory is encrypted, only the customer communication key opens it",
                fields,
                () if fields["storage_state"] else ("it has no section pv_mem_meta, so it cannot be decrypted",),
                (sample.command("zgetdump {file} -k CCK OUT"),),
            )
        if kind == _CORE:
            return Description(
                "core", "s390x core file without data of a protected guest: its memory, if protected, is lost", fields
            )
        fields["entry"] = f"{header.entry:#x}"
        return Description(
            "elf",
            "ELF file for s390x",
            fields,
            ("boot images need the raw kernel (arch/s390/boot/bzImage), not ELF",) if ".init.text" in sections else (),
        )


RECOGNISERS: tuple[Recogniser, ...] = (Elf(), RawKernel())

"""An image in a disk is found through the disk's format, or the format is refused by its name."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.image.conftest import Ran, image
from zseal.errors import FormatError, ZsealError
from zseal.formats.qcow2 import MAGIC
from zseal.image.disks import Qcow2Disk, as_disk
from zseal.image.read import other_images, read_image

Runner = Callable[..., Ran]
CLUSTER_BITS = 12
CLUSTER = 1 << CLUSTER_BITS


def qcow2(content: bytes, *, compressed: bool = False, seed: int = 0, fields: Mapping[str, int] | None = None) -> bytes:
    """Return a disk with ``content``, its clusters in random order and those of zeros left out."""
    shuffle = random.Random(seed)  # an order, not a secret
    clusters = [content[at : at + CLUSTER].ljust(CLUSTER, b"\0") for at in range(0, len(content), CLUSTER)]
    per_table = CLUSTER // 8
    tables = -(-len(clusters) // per_table)
    entries = [0] * (tables * per_table)
    out = bytearray((2 + tables) * CLUSTER)
    numbers = list(range(len(clusters)))
    shuffle.shuffle(numbers)
    for number in numbers:
        data = clusters[number]
        if not any(data):
            continue
        packer = zlib.compressobj(9, wbits=-12)
        packed = packer.compress(data) + packer.flush()
        if compressed and len(packed) < CLUSTER:
            place = len(out)
            out += packed
            sectors = (place + len(packed) - 1) // 512 - place // 512
            entries[number] = 1 << 62 | sectors << 62 - (CLUSTER_BITS - 8) | place
        else:
            out += bytes(-len(out) % CLUSTER)
            entries[number] = 1 << 63 | len(out)
            out += data
    for table in range(tables):
        struct.pack_into(">Q", out, CLUSTER + 8 * table, 1 << 63 | (2 + table) * CLUSTER)
        struct.pack_into(f">{per_table}Q", out, (2 + table) * CLUSTER, *entries[table * per_table :][:per_table])
    header = {
        "version": 3, "backing": 0, "backing_size": 0, "bits": CLUSTER_BITS, "size": len(content),
        "encryption": 0, "l1": tables, "l1_offset": CLUSTER, "incompatible": 0, "header_size": 112, "compression": 0,
    }  # fmt: skip
    header |= fields or {}
    struct.pack_into(
        ">4sIQIIQIIQ", out, 0, MAGIC, *(header[name] for name in (
            "version", "backing", "backing_size", "bits", "size", "encryption", "l1", "l1_offset"))
    )  # fmt: skip
    struct.pack_into(">Q", out, 72, header["incompatible"])
    struct.pack_into(">I", out, 100, header["header_size"])
    out[104] = header["compression"]
    return bytes(out)


def disk_with(*images: bytes) -> bytes:
    return b"".join(bytes(70_001) + each for each in images) + bytes(300_000)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("version", [2, 3])
def test_a_disk_reads_as_its_content(compressed: bool, version: int) -> None:
    content = disk_with(image("se-kat1"))
    disk = io.BufferedReader(Qcow2Disk(io.BytesIO(qcow2(content, compressed=compressed, fields={"version": version}))))
    assert disk.read() == content
    disk.seek(70_001)
    assert disk.read(100) == content[70_001:70_101]
    assert disk.seek(-10, io.SEEK_END) == len(content) - 10
    assert disk.read() == bytes(10)


@pytest.mark.parametrize("compressed", [False, True])
def test_an_image_in_a_qcow2_disk_is_found(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(qcow2(disk_with(image("se-kat1")), compressed=compressed, seed=5))
    found = read_image(path)
    assert found.base == 70_001
    assert found.header == read_image(image("se-kat1")).header
    assert found.components == read_image(image("se-kat1")).components


@pytest.mark.parametrize("arguments", [["-c"], ["-o", "compat=0.10"], ["-o", "cluster_size=2M"]])
def test_disks_that_qemu_made_are_read(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(disk_with(image("se-kat1")))
    command = ["qemu-img", "convert", "-O", "qcow2", *arguments, str(tmp_path / "raw"), str(tmp_path / "disk")]
    subprocess.run(command, check=True, timeout=60)
    subprocess.run(["qemu-img", "snapshot", "-c", "before", str(tmp_path / "disk")], check=True, timeout=60)
    assert read_image(tmp_path / "disk").base == 70_001


def test_every_command_reads_through_the_format(tmp_path: Path, zseal: Runner) -> None:
    (tmp_path / "plain").write_bytes(image("se-kat1"))
    (tmp_path / "disk").write_bytes(qcow2(disk_with(image("se-kat1")), compressed=True))
    described = json.loads(zseal("image", "info", tmp_path / "disk").out)["data"]
    assert described == json.loads(zseal("image", "info", tmp_path / "plain").out)["data"]
    assert (
        "match the header's digests"
        in zseal("image", "info", tmp_path / "disk", "--format", "text", "--check-digests").out
    )
    for name in ("plain", "disk"):
        assert zseal("image", "extract-header", tmp_path / name, "-o", tmp_path / f"{name}.hdr").code == 0
    assert (tmp_path / "plain.hdr").read_bytes() == (tmp_path / "disk.hdr").read_bytes()
    assert zseal("image", "diff", tmp_path / "plain", tmp_path / "disk").code == 0


@pytest.mark.parametrize("form", [lambda content: content, qcow2])
def test_all_images_of_a_disk_are_named(form: Callable[[bytes], bytes], tmp_path: Path, zseal: Runner) -> None:
    path = tmp_path / "disk"
    path.write_bytes(form(disk_with(image("se-kat1"), image("se-kat2"), image("se-kat1"))))
    first = read_image(path)
    others = other_images(path, first)
    assert len(others) == 2
    err = zseal("image", "info", path).err
    assert "the file has 3 images" in err
    assert all(f"{offset:#x}" in err for offset in (first.header_offset, *others))
    path.write_bytes(form(disk_with(image("se-kat1"))))
    assert "images" not in zseal("image", "info", path).err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 1}, "has version 1"),
        ({"encryption": 2}, "is encrypted"),
        ({"backing": 200, "backing_size": 4}, "backing file"),
        ({"incompatible": 2}, "marked as damaged"),
        ({"incompatible": 4}, "in another file"),
        ({"incompatible": 16}, "extended table entries"),
        ({"incompatible": 1 << 40}, "a feature that zseal does not know"),
        ({"bits": 40}, "invalid size"),
        ({"size": 0}, "invalid size"),
        ({"size": 1 << 63}, "invalid size"),
        ({"l1": 0}, "first table"),
        ({"l1": 0xFFFFFFFF}, "first table"),
        ({"l1_offset": 1 << 50}, "after the end of the file"),
    ],
)
def test_a_disk_that_cannot_be_read_is_refused_by_its_format(
    fields: dict[str, int], message: str, tmp_path: Path, zseal: Runner
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(qcow2(bytes(100_000), fields=fields))
    ran = zseal("image", "info", path)
    assert ran.code == 1
    assert f"{path}: the disk is in QEMU's format (qcow2)" in ran.err
    assert message in ran.err
    assert ran.err.count("\n") == 1


def test_a_disk_packed_with_zstandard_is_refused_when_a_cluster_is_needed() -> None:
    disk = Qcow2Disk(
        io.BytesIO(qcow2(b"x" * CLUSTER * 4, compressed=True, fields={"incompatible": 8, "compression": 1}))
    )
    with pytest.raises(FormatError, match="Zstandard"):
        disk.read(1)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"KDMV\1\0\0\0", "VMware"),
        (b"# Disk DescriptorFile\nversion=1\n", "VMware"),
        (b"vhdxfile", "Hyper-V"),
        (b"conectix", "Hyper-V"),
        (bytes(64) + b"\x7f\x10\xda\xbe", "VirtualBox"),
        (b"LUKS\xba\xbe\0\2", "LUKS"),
    ],
)
def test_other_formats_are_refused_by_name(head: bytes, name: str, tmp_path: Path, zseal: Runner) -> None:
    path = tmp_path / "disk"
    path.write_bytes(head.ljust(5000, b"\0"))
    ran = zseal("image", "info", path)
    assert (ran.code, name in ran.err, "qemu-img convert" in ran.err) == (1, True, True)


def test_an_empty_disk_of_terabytes_is_searched_at_once() -> None:
    size = 1 << 44
    tables = -(-size // (1 << 16) // 8192)
    out = bytearray(qcow2(b""))
    out += bytes(CLUSTER + 8 * tables - len(out))
    struct.pack_into(">4sIQIIQIIQ", out, 0, MAGIC, 3, 0, 0, 16, size, 0, tables, CLUSTER)
    with pytest.raises(FormatError, match="no SE header found"):
        read_image(bytes(out))


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_disk_is_an_error_of_ours(data: st.DataObject) -> None:
    disk = bytearray(qcow2(disk_with(image("se-kat1"))[:200_000], compressed=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 6))):
        disk[data.draw(st.integers(4, len(disk) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(100, len(disk)))
    try:
        stream = as_disk(io.BytesIO(bytes(disk[:cut])), "disk")
        while stream.read(1 << 16):
            if stream.tell() > 1 << 22:
                break
        read_image(bytes(disk[:cut]))
    except ZsealError:
        pass

"""The cpio writer: what Linux (and GNU cpio) would read back."""

import gzip
from pathlib import Path

from zseal.debian import ramdisk


def members(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Read a newc archive by the format's own rules, independently of the writer."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    position = 0
    while True:
        assert archive[position : position + 6] == b"070701"
        fields = [int(archive[position + 6 + 8 * i : position + 14 + 8 * i], 16) for i in range(13)]
        name = archive[position + 110 : position + 110 + fields[11] - 1].decode()
        assert archive[position + 110 + fields[11] - 1] == 0
        start = -(-(position + 110 + fields[11]) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], archive[start : start + fields[6]], (fields[9], fields[10]))
        position = -(-(start + fields[6]) // 4) * 4


def test_members_come_back_with_mode_content_and_device() -> None:
    archive = ramdisk.newc(
        [
            ramdisk.directory("bin"),
            ramdisk.file("bin/tool", b"12345", executable=True),
            ramdisk.file("note", b""),
            ramdisk.character_device("console", 5, 1),
        ]
    )
    assert members(archive) == {
        "bin": (0o040755, b"", (0, 0)),
        "bin/tool": (0o100755, b"12345", (0, 0)),
        "note": (0o100644, b"", (0, 0)),
        "console": (0o020600, b"", (5, 1)),
    }
    assert len(archive) % 4 == 0


def test_busybox_ramdisk_is_the_same_bytes_every_time_and_keeps_module_order(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"\x7fELF not really")
    build = [
        ramdisk.busybox_ramdisk(busybox, "#!/bin/sh\n", modules=[("z.ko", b"1"), ("a.ko", b"2")]) for _ in range(2)
    ]
    assert build[0] == build[1]
    content = members(gzip.decompress(build[0]))
    assert [name for name in content if name.startswith("modules/")] == ["modules/00-z.ko", "modules/01-a.ko"]
    assert content["init"] == (0o100755, b"#!/bin/sh\n", (0, 0))
    assert content["bin/busybox"][0] & 0o111

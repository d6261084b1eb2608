"""Building images: the published known answers, sizes at the edges, refused inputs, nothing half-written."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.image.conftest import (
    BOOTLOADERS,
    COMMAND_LINE,
    HOST_KEYS,
    INPUTS,
    KERNEL,
    RAMDISK,
    facts,
    fake_kernel,
    image,
    image_keys,
)
from tests.waiting import PATIENCE
from zseal.crypto.keyexchange import MachineKeys
from zseal.errors import InputError, OutputError
from zseal.formats.image_layout import ComponentKind
from zseal.formats.se_header import PlainFlags
from zseal.image.bootloaders import Bootloaders
from zseal.image.build import build_image
from zseal.image.keys import ImageKeys
from zseal.image.pipeline import CHUNK
from zseal.image.verify import verify_image
from zseal.secret import Secret

HOST = HOST_KEYS[0].public_key()
MACHINE = MachineKeys(HOST_KEYS[0])


@pytest.mark.parametrize(("name", "hosts"), [("se-kat1", 2), ("se-kat2", 2), ("se-kat3", 1)])
def test_known_answers_rebuild_byte_for_byte(name: str, hosts: int) -> None:
    known = facts(name) | INPUTS if name == "se-kat1" else facts(name)
    output = io.BytesIO()
    built = build_image(
        output,
        kernel=KERNEL,
        ramdisk=RAMDISK,
        cmdline=COMMAND_LINE,
        host_keys=[key.public_key() for key in HOST_KEYS[:hosts]],
        keys=image_keys(name),
        flags=int(known["pcf_hex"], 16),
        secret_flags=int(known["scf_hex"], 16),
        bootloaders=BOOTLOADERS,
        check_components=False,
    )
    assert output.getvalue() == image(name)
    assert built.size == len(output.getvalue())
    assert (built.header_address, built.ipib_address) == (0x14000, 0x1A000)


def test_same_keys_give_the_same_image_and_new_keys_another() -> None:
    keys = ImageKeys.generate()
    images = [io.BytesIO() for _ in range(3)]
    for output, used in zip(images, (keys, keys, None), strict=True):
        build_image(output, kernel=fake_kernel(), host_keys=[HOST], keys=used)
    first, second, third = (output.getvalue() for output in images)
    assert first == second
    assert first != third


def test_inputs_may_be_paths_bytes_or_streams_that_cannot_seek(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(fake_kernel())
    read, write = os.pipe()
    with os.fdopen(write, "wb") as pipe:
        pipe.write(b"ramdisk" * 100)
    output = tmp_path / "image"
    with os.fdopen(read, "rb") as ramdisk:
        build_image(output, kernel=str(kernel), ramdisk=ramdisk, cmdline=io.BytesIO(b"quiet"), host_keys=[HOST])
    verify_image(output, MACHINE, extract=tmp_path / "out")
    assert (tmp_path / "out/ramdisk").read_bytes() == b"ramdisk" * 100
    assert (tmp_path / "out/parmfile").read_bytes() == b"quiet"
    assert output.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 4097])
@pytest.mark.parametrize("encrypted", [True, False])
def test_ramdisk_of_any_size_comes_back(size: int, encrypted: bool, tmp_path: Path) -> None:
    ramdisk = os.urandom(4096) * (size // 4096) + b"x" * (size % 4096)
    flags = 0 if encrypted else PlainFlags.NO_COMPONENT_ENCRYPTION
    output = io.BytesIO()
    built = build_image(output, kernel=fake_kernel(), ramdisk=ramdisk, host_keys=[HOST], flags=flags)
    part = next(part for part in built.components if part.kind is ComponentKind.RAMDISK)
    assert (part.size, part.original_size) == (-(-size // 4096) * 4096, size)
    padded = ramdisk.ljust(part.size, b"\0")
    stored = output.getvalue()[part.address : part.address + part.size]
    assert (stored == padded) is not encrypted
    verify_image(output.getvalue(), MACHINE, extract=tmp_path)
    assert (tmp_path / "ramdisk").read_bytes() == ramdisk
    assert (tmp_path / "kernel").read_bytes() == fake_kernel()
    assert not (tmp_path / "parmfile").exists()


def test_unchecked_empty_inputs_become_one_page_each() -> None:
    built = build_image(io.BytesIO(), kernel=b"", ramdisk=b"", cmdline=b"", host_keys=[HOST], check_components=False)
    assert [(part.name, part.size, part.original_size) for part in built.components[:3]] == [
        ("kernel", 4096, 0),
        ("ramdisk", 4096, 0),
        ("cmdline", 4096, 1),
    ]


@pytest.mark.parametrize(("count", "header_end"), [(1, 0x15000), (44, 0x15000), (45, 0x16000), (95, 0x16000)])
def test_one_to_95_host_keys(count: int, header_end: int) -> None:
    keys = [ec.derive_private_key(1000 + number, ec.SECP521R1()) for number in range(count)]
    output = io.BytesIO()
    built = build_image(output, kernel=fake_kernel(), host_keys=[key.public_key() for key in keys])
    assert built.components[0].address == header_end
    verify_image(output.getvalue(), MachineKeys(keys[-1]))


def test_96_host_keys_are_too_many() -> None:
    keys = [ec.derive_private_key(1000 + number, ec.SECP521R1()).public_key() for number in range(96)]
    with pytest.raises(InputError, match="room for 95"):
        build_image(io.BytesIO(), kernel=fake_kernel(), host_keys=keys)


@pytest.mark.parametrize(
    ("max_field", "length", "fits"),
    [(64, 63, True), (64, 64, False), (0, 895, True), (0, 896, False), (4096, 4095, True), (4096, 4096, False)],
)
def test_command_line_limit_comes_from_the_kernel_and_counts_the_nul(max_field: int, length: int, fits: bool) -> None:
    text = b"x" * length
    kernel = fake_kernel(max_command_line=max_field)
    if fits:
        build_image(io.BytesIO(), kernel=kernel, cmdline=text, host_keys=[HOST])
        build_image(io.BytesIO(), kernel=kernel, cmdline=text + b"\0", host_keys=[HOST])
    else:
        with pytest.raises(InputError, match="too long"):
            build_image(io.BytesIO(), kernel=kernel, cmdline=text, host_keys=[HOST])


def test_newline_of_the_parmfile_is_kept(tmp_path: Path) -> None:
    output = io.BytesIO()
    build_image(output, kernel=fake_kernel(), cmdline=b"quiet\n", host_keys=[HOST])
    verify_image(output.getvalue(), MACHINE, extract=tmp_path)
    assert (tmp_path / "parmfile").read_bytes() == b"quiet\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": b"\x7fELF" + bytes(70000)}, "ELF"),
        ({"kernel": b"\x7fELF"}, "ELF"),
        ({"kernel": b"MZ" + bytes(70000)}, "no S390EP"),
        ({"kernel": fake_kernel()[:0x10437]}, "less than"),
        ({"kernel": b""}, "less than"),
        ({"ramdisk": b""}, "ramdisk is empty"),
        ({"cmdline": b"x" * ((1 << 20) + 1)}, "not a parmfile"),
        ({"kernel": "/nonexistent/vmlinuz"}, "cannot read the kernel"),
        ({"ramdisk": "/"}, "cannot read the ramdisk"),
        ({"host_keys": []}, "at least one host key"),
        ({"host_keys": [HOST, HOST]}, "are the same"),
        ({"host_keys": [HOST, ec.generate_private_key(ec.SECP384R1()).public_key()]}, "secp384r1"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    arguments: dict[str, object] = {"kernel": fake_kernel(), "host_keys": [HOST]} | changes
    with pytest.raises(InputError, match=message):
        build_image(tmp_path / "image", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_existing_output_stays_unless_told_otherwise(tmp_path: Path) -> None:
    output = tmp_path / "image"
    output.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists"):
        build_image(output, kernel=fake_kernel(), host_keys=[HOST])
    assert output.read_bytes() == b"old"
    build_image(output, kernel=fake_kernel(), host_keys=[HOST], overwrite=True)
    assert output.stat().st_size > 0x15000
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


class FailingStream(io.RawIOBase):
    """Gives some data, then fails as a broken disk does."""

    def __init__(self) -> None:
        self.left = 3 * CHUNK

    def read(self, size: int = -1) -> bytes:
        if not self.left:
            raise OSError(5, "Input/output error")
        count = min(size, self.left)
        self.left -= count
        return bytes(count)


def test_read_error_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Input/output error"):
        build_image(tmp_path / "image", kernel=fake_kernel(), ramdisk=FailingStream(), host_keys=[HOST])
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_one_error() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        build_image(Full(), kernel=fake_kernel(), ramdisk=bytes(9 * CHUNK), host_keys=[HOST])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_at_any_moment_the_old_output_stays(number: signal.Signals, tmp_path: Path) -> None:
    """The child feeds its own ramdisk forever; it is killed once it is in the middle of it."""
    output = tmp_path / "image"
    output.write_bytes(b"old")
    script = (
        "import sys, itertools\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "from zseal.image.build import build_image\n"
        "class Endless:\n"
        "    def read(self, size=-1):\n"
        "        return bytes(size)\n"
        "def tell(done, total):\n"
        "    print(done, flush=True)\n"
        "key = ec.generate_private_key(ec.SECP521R1()).public_key()\n"
        "build_image(sys.argv[1], kernel=b'', ramdisk=Endless(), host_keys=[key], check_components=False,\n"
        "            overwrite=True, progress=tell)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(output)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert child.stdout is not None
        for _ in range(4):
            assert child.stdout.readline()
        child.send_signal(number)
        child.stdout.close()
        assert child.wait(PATIENCE) != 0
    finally:
        child.kill()
        child.wait()
    assert output.read_bytes() == b"old"


def test_memory_does_not_grow_with_the_ramdisk() -> None:
    script = (
        "from pathlib import Path\n"
        "from cryptography.hazmat.primitives.asymmetric import ec\n"
        "from zseal.image.build import build_image\n"
        "class Long:\n"
        "    left = 260 << 20\n"
        "    def read(self, size=-1):\n"
        "        size = min(size, self.left)\n"
        "        self.left -= size\n"
        "        return bytes(size)\n"
        "class Discard:\n"
        "    def seek(self, offset):\n"
        "        return offset\n"
        "    def write(self, data):\n"
        "        return len(data)\n"
        "key = ec.generate_private_key(ec.SECP521R1()).public_key()\n"
        "build_image(Discard(), kernel=b'', ramdisk=Long(), host_keys=[key], check_components=False)\n"
        # not ru_maxrss: that remembers the process which forked this one
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(child.stdout) < 200 << 10


def test_progress_reaches_the_total() -> None:
    seen: list[tuple[int, int | None]] = []
    build_image(
        io.BytesIO(),
        kernel=fake_kernel(),
        ramdisk=bytes(CHUNK + 5),
        host_keys=[HOST],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1][0] >= len(fake_kernel()) + CHUNK + 5
    assert {total for _, total in seen} == {len(fake_kernel()) + CHUNK + 5}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"header_key": Secret(bytes(31))}, "header key has 31 bytes instead of 32"),
        ({"cck": Secret(bytes(33))}, "communication key has 33"),
        ({"image_key": Secret(bytes(32))}, "image key has 32 bytes instead of 64"),
        ({"image_key": Secret(b"a" * 64)}, "halves of the image key are equal"),
    ],
)
def test_unfit_keys_are_refused(keys: dict[str, Secret], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageKeys.generate(**keys)


def test_keys_never_show_up() -> None:
    keys = ImageKeys.generate(header_key=Secret(b"\xab" * 32))
    assert "abababab" not in repr(keys) and "\\xab\\xab\\xab" not in repr(keys)
    assert "EllipticCurve" not in repr(keys)


def test_larger_stage3a_moves_header_and_components() -> None:
    loaders = Bootloaders(stage3a=bytes(0x6000), stage3b=bytes(128))
    output = io.BytesIO()
    built = build_image(output, kernel=fake_kernel(), host_keys=[HOST], bootloaders=loaders)
    assert (built.header_address, built.components[0].address) == (0x16000, 0x17000)
    verify_image(output.getvalue(), MACHINE)


def test_start_address_can_be_another() -> None:
    output = io.BytesIO()
    build_image(output, kernel=fake_kernel(), host_keys=[HOST], start_address=0x15100)
    verified = verify_image(output.getvalue(), MACHINE)
    assert verified.accepted.psw.address == 0x15100
    assert verified.warnings == (
        "the guest starts at byte 0x100 of the component kernel, not where its bootloader begins",
    )

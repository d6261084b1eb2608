"""The published known answers, ready for use."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests import paths
from zseal.cli.main import main
from zseal.crypto import keyexchange
from zseal.formats.image_layout import ComponentKind
from zseal.hostkeys.machine import Machine
from zseal.image.bootloaders import Bootloaders
from zseal.image.keys import ImageKeys
from zseal.secret import Secret

VECTORS = paths.VECTORS / "se-image"


def facts(name: str) -> dict[str, Any]:
    return json.loads((VECTORS / f"{name}.json").read_text())  # type: ignore[no-any-return]


def image(name: str) -> bytes:
    data = gzip.decompress((VECTORS / f"{name}.img.gz").read_bytes())
    known = facts(name)
    digest = known.get("image_sha256") or known["derived"]["image_sha256"]
    assert hashlib.sha256(data).hexdigest() == digest
    return data


INPUTS = facts("se-kat1")["inputs"]
KERNEL = bytes.fromhex(INPUTS["kernel_hex"])
RAMDISK = bytes.fromhex(INPUTS["ramdisk_hex"])
COMMAND_LINE = bytes.fromhex(INPUTS["cmdline_component_hex"])
BOOTLOADERS = Bootloaders(
    stage3a=bytes((7 * i + 3) & 255 for i in range(4656 - 24)) + bytes(24),
    stage3b=bytes((5 * i + 1) & 255 for i in range(300 - 64)) + bytes(64),
)


def private_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


HOST_KEYS = (private_key(INPUTS["host_key_1_pem"]), private_key(INPUTS["host_key_2_pem"]))


class KnownCustomerKey:
    """Stands for a customer key whose private half the reference tool threw away: ECDH works from the other side."""

    def __init__(self, coordinates: bytes) -> None:
        self._public = keyexchange.public_key(coordinates)

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    def exchange(self, algorithm: ec.ECDH, peer: ec.EllipticCurvePublicKey) -> bytes:
        host = next(key for key in HOST_KEYS if key.public_key() == peer)
        return host.exchange(algorithm, self._public)


def tweaks(prefixes: Mapping[str, str]) -> dict[ComponentKind, bytes]:
    return {ComponentKind(name): bytes.fromhex(prefix)[2:] for name, prefix in prefixes.items()}


def image_keys(name: str) -> ImageKeys:
    """The random values of known answer ``name``."""
    known = facts(name)
    customer: Any = private_key(INPUTS["customer_private_key_pem"])
    if name != "se-kat1":
        customer = KnownCustomerKey(bytes.fromhex(known["cust_pub_key_hex"]))
    return ImageKeys(
        header_key=Secret(bytes.fromhex(INPUTS["hdr_key_hex"])),
        image_key=Secret(bytes.fromhex(known.get("xts_hex") or INPUTS["image_xts_key_hex"])),
        cck=Secret(bytes.fromhex(INPUTS["cck_hex"])),
        customer_key=customer,
        iv=bytes.fromhex(known.get("iv_hex") or INPUTS["hdr_iv_hex"]),
        tweaks=tweaks(known.get("tweak_prefixes") or INPUTS["tweak_prefixes"]),
    )


def fake_kernel(size: int = 0x12345, max_command_line: int = 4096) -> bytes:
    """Bytes that pass for an s390x kernel."""
    data = bytearray((index * 7) & 0xFF for index in range(size))
    data[0x10008:0x1000E] = b"S390EP"
    data[0x10430:0x10438] = max_command_line.to_bytes(8, "big")
    return bytes(data)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A software machine with its documents and chain."""
    return Machine.create(tmp_path_factory.mktemp("machines") / "here")


@pytest.fixture(scope="session")
def other_machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "there")


class Ran(NamedTuple):
    """What a command line ended with."""

    code: int
    out: str
    err: str


@pytest.fixture
def zseal(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Runs command lines of zseal, or of genprotimg."""

    def run(*arguments: str | Path, program: Callable[[list[str]], None] = main) -> Ran:
        capfd.readouterr()
        try:
            program([str(argument) for argument in arguments])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ran(code, out, err)

    monkeypatch.setenv("COLUMNS", "200")
    return run


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A directory with a kernel, a ramdisk, a parmfile and key files of the right sizes."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in {
        "kernel": fake_kernel(),
        "ramdisk": b"ramdisk" * 2000,
        "parmfile": b"root=/dev/vda1 quiet\n",
        "key32": bytes(range(32)),
        "key64": bytes(range(64)),
    }.items():
        (folder / name).write_bytes(content)
    return folder

"""What is fuzzed of images: any bytes either are understood or are refused with an error of ours.

The unit tests use the functions in every run, and so does the coverage-guided ``fuzz_image.py``.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from zseal.crypto.keyexchange import MachineKeys
from zseal.errors import ZsealError
from zseal.formats.ipib import Ipib
from zseal.formats.key_hashes import parse_key_hashes
from zseal.formats.se_header import SecretArea, parse_header
from zseal.image.build import build_image
from zseal.image.describe import HeaderView, image_json, info_json, info_text
from zseal.image.diff import compare_images, machine_opener
from zseal.image.model import Component
from zseal.image.read import read_image
from zseal.image.stage3b import find_arguments
from zseal.image.verify import verify_image

VECTORS = Path(__file__).parents[1] / "vectors" / "se-image"
IPIB_OFFSET = 0x1A000


@functools.cache
def known_image() -> bytes:
    return gzip.decompress((VECTORS / "se-kat2.img.gz").read_bytes())


@functools.cache
def machine() -> MachineKeys:
    key = load_pem_private_key((VECTORS / "se-hostkey.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return MachineKeys(key)


def layouts(data: bytes) -> None:
    """Header, decrypted area and IPL block: what parses packs to the same bytes."""
    with contextlib.suppress(ZsealError):
        assert parse_header(data).pack() == data
    with contextlib.suppress(ZsealError):
        Ipib.parse(data).pack()
    with contextlib.suppress(ZsealError):
        SecretArea.unpack(data)
    with contextlib.suppress(ZsealError):
        parse_key_hashes(data.decode("latin-1"), "fuzz")
    parts = [Component.from_ipib(listed) for listed in Ipib.parse(known_image()[IPIB_OFFSET:]).components]
    find_arguments(data, parts)


def file(data: bytes) -> None:
    """Any file: described, verified and compared."""
    with contextlib.suppress(ZsealError):
        image = read_image(data)
        view = HeaderView.open(image.header, None)
        json.dumps(info_json(view) | {"image": image_json(image)})
        info_text(view, image, full=True)
    with contextlib.suppress(ZsealError):
        verify_image(data, machine())
    with contextlib.suppress(ZsealError):
        compare_images(data, known_image(), openers=[machine_opener(machine())])


def patched(data: bytes) -> None:
    """The known image with some of its bytes replaced: each record of ``data`` is u24 offset, u8 count, the bytes."""
    image = bytearray(known_image())
    at = 0
    while at + 4 <= len(data):
        place, count = struct.unpack_from(">IB", b"\0" + data[at : at + 4])
        chunk = data[at + 4 : at + 4 + count]
        place %= len(image)
        image[place : place + len(chunk)] = chunk
        at += 4 + len(chunk)
    file(bytes(image))


def component_list(data: bytes) -> None:
    """The known image with another IPL parameter block."""
    file(known_image()[:IPIB_OFFSET] + data)


def inputs(data: bytes) -> None:
    """Kernel, ramdisk and command line made of any bytes."""
    third = len(data) // 3
    with contextlib.suppress(ZsealError):
        build_image(
            io.BytesIO(),
            kernel=data[:third],
            ramdisk=data[third : 2 * third],
            cmdline=data[2 * third :],
            host_keys=[machine().host.public_key()],
            check_components=len(data) % 2 == 0,
        )


TARGETS: tuple[Callable[[bytes], None], ...] = (layouts, file, patched, component_list, inputs)


def seeds() -> dict[str, bytes]:
    """Return inputs that reach the depth of every target."""
    header = (VECTORS / "se-hdr-genprotimg-2.35.bin").read_bytes()
    ipib = known_image()[IPIB_OFFSET:]
    hashes = b"\n".join([b"ab" * 32] * 15) + b"\n"
    patch = (0x14020).to_bytes(3, "big") + b"\x08" + bytes(8)
    return {
        "layouts-header": b"\0" + header,
        "layouts-ipib": b"\0" + ipib,
        "layouts-hashes": b"\0" + hashes,
        "file-header": b"\1" + header,
        "file-image": b"\1" + known_image(),
        "patched": b"\2" + patch,
        "component-list": b"\3" + ipib,
        "inputs": b"\4" + b"kernel" * 100,
    }

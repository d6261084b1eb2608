"""A guest's whole life in a process of its own, whose memory another process then searches for the guest's keys.

The image is sealed outside, so that the keys come to the process in the image's header only. Run as a program it prints
them, masked so that no copy comes from the printing, then ``ready``, and waits.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.crypto.keyexchange import CURVE, MachineKeys
from zseal.model.guest import ModelGuest
from zseal.model.image import ModelComponent, ModelImage, seal_image
from zseal.model.machine import ModelMachine
from zseal.secret import Secret
from zseal.ultravisor.image.acceptance import accept_header

_MASK = 0x5A
_KEY_PART = 32  # every key is made of AES-256 keys


def keys_in_memory() -> tuple[set[str], set[str]]:
    """Run the life; return the names of the keys found in the process's memory while the guest lives, and after."""
    private = ec.generate_private_key(CURVE())
    image = seal_image([(0x10000, b"kernel")], [private.public_key()])
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    start = json.dumps([pem, image.header.hex(), image.components[0].stored.hex()])
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        keys, phases = {}, []
        for word in (start, "stop"):
            process.stdin.write(word + "\n")
            process.stdin.flush()
            for line in iter(process.stdout.readline, "ready\n"):
                name, digits = line.split()
                keys[name] = bytes(byte ^ _MASK for byte in bytes.fromhex(digits))
            memory = _writable(process.pid)
            phases.append({name for data in memory for name, key in keys.items() if _holds(data, key)})
        process.stdin.close()
    assert process.returncode == 0
    return phases[0], phases[1]


def _holds(data: bytes, key: bytes) -> bool:
    return any(key[at : at + _KEY_PART] in data for at in range(0, len(key), _KEY_PART))


def _writable(pid: int) -> list[bytes]:
    """The contents of all private writable memory of a process."""
    found = []
    process = Path(f"/proc/{pid}")
    with (process / "maps").open() as maps, (process / "mem").open("rb", 0) as memory:
        for line in maps:
            span, permissions = line.split()[:2]
            if permissions == "rw-p":
                begin, end = (int(number, 16) for number in span.split("-"))
                memory.seek(begin)
                found.append(memory.read(end - begin))
    return found


def _print(name: str, key: Secret) -> None:
    print(name, "".join(f"{byte ^ _MASK:02x}" for byte in key.view()))


def _live() -> None:
    pem, header, stored = json.loads(sys.stdin.readline())
    private = load_pem_private_key(pem.encode(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    machine = ModelMachine(memory=8 * MIB, keys=MachineKeys(private))
    component = ModelComponent(0x10000, 1 << 32, bytes.fromhex(stored))
    image = ModelImage(bytes.fromhex(header), (component,), Secret(bytes(32)))
    accepted = accept_header(image.header, machine.keys)
    _print("image", accepted.image_key)
    accepted.wipe()
    guest = ModelGuest(machine, image=image)
    guest.start()
    configuration = machine.ultravisor.firmware.configuration(guest.handle)
    assert configuration.accepted is not None
    _print("cck", configuration.accepted.cck)
    _print("export", configuration.guest.sealer._encryption)
    _print("integrity", configuration.guest.sealer._integrity)
    for page in range(0x30, 0x60):
        guest.write(page * PAGE_SIZE, b"content")
        guest.pager.page_out(page)
        guest.read(page * PAGE_SIZE, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    del configuration
    guest.stop()
    gc.collect()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _live()

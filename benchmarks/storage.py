"""How fast pages leave a guest and come back, beside AES-256-GCM of the same library in the same run.

Both work on 4 KiB pages. The ratio is what is claimed: it holds on slow and on busy machines alike. Last comes the time
that the configuration of a 64 GiB guest takes to create.

    python benchmarks/storage.py [--mib N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _gcm(data: bytes) -> tuple[float, float]:
    """Seal and open every page by itself, as a program without the ultravisor's bulk calls would."""
    cipher, view = AESGCM(bytes(32)), memoryview(data)
    nonces = [number.to_bytes(12, "big") for number in range(len(data) >> PAGE_SHIFT)]
    sealed: list[bytes] = []
    out = _seconds(
        lambda: sealed.extend(
            cipher.encrypt(nonce, view[at : at + PAGE_SIZE], None)
            for nonce, at in zip(nonces, range(0, len(data), PAGE_SIZE), strict=True)
        )
    )
    back = _seconds(lambda: [cipher.decrypt(nonce, page, None) for nonce, page in zip(nonces, sealed, strict=True)])
    return out, back


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=256, help="MiB a round")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size = arguments.mib * MIB
    machine = ModelMachine(memory=size + 64 * MIB)
    guest = ModelGuest(machine, memory=size + MIB)
    first = machine.host.frames.take(size >> PAGE_SHIFT)
    guest.configuration.space.map_run(MIB >> PAGE_SHIFT, first, size >> PAGE_SHIFT)
    uv, address = machine.ultravisor, first << PAGE_SHIFT
    uv.host.import_run(guest.handle, MIB, size)
    block = bytes(range(256)) * 4096
    for at in range(0, size, MIB):
        uv.firmware.guest_write(guest.handle, MIB + at, block)

    rows: list[tuple[float, float, float, float]] = []
    for number in range(arguments.rounds):
        export = _seconds(lambda: uv.host.export_run(address, size))
        data = uv.host.read(address, min(size, 64 * MIB))
        back = _seconds(lambda: uv.host.import_run(guest.handle, MIB, size))
        seal, open_ = (seconds * size / len(data) for seconds in _gcm(data))
        rows.append((export, back, seal, open_))
        speed = "  ".join(f"{arguments.mib / seconds:7.0f}" for seconds in rows[-1])
        if number == 0:
            print("MiB/s    export   import  GCM seal GCM open")
        print(f"round {number + 1}  {speed}")
    columns = list(zip(*rows, strict=True))
    export, back, seal, open_ = (min(column) for column in columns)
    print(f"best     export {arguments.mib / export:.0f} MiB/s, import {arguments.mib / back:.0f} MiB/s")
    export, back, seal, open_ = (statistics.median(column) for column in columns)
    print(f"median   export {arguments.mib / export:.0f} MiB/s, import {arguments.mib / back:.0f} MiB/s")
    print(f"ratio to raw AES-256-GCM of pages: export {seal / export:.2f}, import {open_ / back:.2f} (1 is as fast)")
    machine.close()

    machine = ModelMachine(memory=2040 * MIB)
    machine.host.initialise()
    seconds = _seconds(lambda: machine.host.create(64 << 30))
    print(f"configuration of a 64 GiB guest created in {seconds:.2f} s")
    machine.close()


if __name__ == "__main__":
    main()

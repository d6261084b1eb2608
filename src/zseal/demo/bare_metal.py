"""The demonstration without QEMU: a bare-metal guest on the embedded engine that does what its command line lists.

The protected run uses the same parts as with Linux: a sealed image, the bootloaders, the ultravisor, the host view.
What only Linux can show (its devices, its own statements) is not shown, and is None in the result.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from zseal.arch.storage import MIB
from zseal.demo.demonstration import (
    Boot,
    DemoError,
    Demonstration,
    demonstration,
    flip_one_byte,
    host_sees,
    refused_start,
    require_poweroff,
    shared_pages,
)
from zseal.engine.unicorn.emulator import emulator_version
from zseal.guest.engines import EngineName
from zseal.guest.guest import Guest
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.progress import NoProgress, Progress
from zseal.testguest import kernel

MEMORY = 16 * MIB
_ENGINE = EngineName.EMBEDDED
_TIMEOUT = 60.0
_MAILBOX = 0x201000  # the second page of the test guest's pool, where it awaits words
_LOOK, _END = b"zseal-look", b"zseal-end"


def _words(marker: str) -> str:
    """Return the guest's command line. The guest keeps the marker, then writes it to a page that it shares."""
    return (
        f"storage facility=158 marker={marker} holds=marker,{marker} share-at=pool+1000 say=ready "
        f"await=pool+1000,{_LOOK.decode()} store=pool,{marker} share-at=pool say=shared "
        f"await=pool+1000,{_END.decode()} poweroff"
    )


def demonstrate_embedded(directory: Path, *, progress: Progress | None = None) -> Demonstration:
    """Build everything in the empty ``directory``, run it and return the observations.

    Raises MissingDependencyError without the package unicorn, another ZsealError if a step fails.
    """
    progress = progress or NoProgress()
    emulator_version()
    marker = f"zseal-{secrets.token_hex(24)}"

    progress.step("Creating two software machines")
    machine = Machine.create(directory / "machine", name="demo")
    other = Machine.create(directory / "other-machine", name="another")

    progress.step("Sealing a bare-metal guest and its command line for the first one")
    image, plain_kernel = directory / "demo.img", directory / "kernel"
    plain_kernel.write_bytes(kernel())
    words = _words(marker)
    build_image(image, kernel=plain_kernel, cmdline=words.encode(), host_keys=[machine.keys.host.public_key()])

    progress.step("Booting it as a protected guest")
    sealed = _boot(Guest(image, machine=machine, memory=MEMORY, timeout=_TIMEOUT, engine=_ENGINE), marker)
    progress.step("Booting the same guest unprotected, to compare")
    plain = _boot(
        Guest.plain(plain_kernel, cmdline=words, memory=MEMORY, timeout=_TIMEOUT, engine=_ENGINE),
        marker,
    )
    progress.step("Starting the image on the other machine")
    wrong_machine = refused_start(image, other, memory=MEMORY, engine=_ENGINE)
    progress.step("Starting it with one byte flipped")
    changed = flip_one_byte(image, directory / "tampered.img")
    tampered = refused_start(changed, machine, memory=MEMORY, engine=_ENGINE)

    return demonstration(sealed, plain, wrong_machine=wrong_machine, tampered=tampered)


def _boot(guest: Guest, marker: str) -> Boot:
    """Let the guest report what it sees, and search its memory before and after it shares the marker."""
    start = time.monotonic()
    with guest:
        told = guest.wait_for_output(": ready", _TIMEOUT)
        seconds = time.monotonic() - start
        if f" pool={_MAILBOX - 0x1000:#x}" not in told:
            raise DemoError("the test guest's storage is elsewhere", hint="reinstall zseal")
        seen_before = host_sees(guest, marker)
        _put(guest, _LOOK)
        guest.wait_for_output(": shared", _TIMEOUT)
        seen_after = host_sees(guest, marker)
        _put(guest, _END)
        require_poweroff(guest.wait(_TIMEOUT))
    return Boot(
        facility="facility 158 yes" in told,
        marker_held=" yes" in told.partition(": holds ")[2].partition("\n")[0],
        seconds=round(seconds, 3),
        seen_before=seen_before,
        seen_after=seen_after,
        shared_pages=shared_pages(guest.report),
    )


def _put(guest: Guest, word: bytes) -> None:
    """Write ``word`` where the guest awaits it, as a host may: the page is shared."""
    vmm = guest.vmm
    write = guest.engine.memory.write if vmm is None else vmm.uv.write
    guest.in_loop(lambda: write(_MAILBOX, word))

"""Storage accesses of host and guests, and of a host that makes storage accessible first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import PAGE_SHIFT, PAGE_SIZE
from zseal.ultravisor.addressspace import LARGE_PAGES
from zseal.ultravisor.securestorage import CHUNK, GuestStorage, SecureStorage
from zseal.ultravisor.tables import DONATED, NO_FRAME, NON_SECURE, PRIVATE, SECURE, SHARED_FRAME, FrameState

_TEID_ADDRESS_VALID = 4  # bit 61
_HIDDEN = np.array([state in (FrameState.SECURE, FrameState.DONATED) for state in FrameState])
"""By frame state: whether the host has no access."""
_ACCESS = ProgramCode.SECURE_STORAGE_ACCESS  # a name of its own: looking up members of enumerations takes time
Data = bytes | bytearray | memoryview


def _interruption(code: ProgramCode, address: int) -> ProgramInterruption:
    return ProgramInterruption(code, address, teid=address & ~(PAGE_SIZE - 1) | _TEID_ADDRESS_VALID)


def host_check(storage: SecureStorage, address: int, length: int) -> None:
    """Raise ProgramInterruption 3d if the host may not touch all of ``length`` bytes at absolute ``address``."""
    if length <= 0 or address < 0:
        return
    first, last = address >> PAGE_SHIFT, (address + length - 1) >> PAGE_SHIFT
    if first == last and first < storage.frames.count:
        if storage.frames.state.item(first) in (SECURE, DONATED):
            raise _interruption(_ACCESS, address)
        return
    hit = np.flatnonzero(_HIDDEN[storage.frames.state[first : last + 1]])
    if hit.size:
        at = max(address, (first + int(hit[0])) << PAGE_SHIFT)
        raise _interruption(_ACCESS, at)


def host_view(storage: SecureStorage, address: int, length: int, *, live: bool) -> Iterator[bytes | bytearray]:
    """Yield, in pieces, what a host reads that first makes every page accessible, as Linux does: shared pages as they
    are, private ones encrypted. With ``live`` the private pages stay in place.

    Raises ProgramInterruption 3d for donated storage, which cannot be made accessible.
    """
    end = address + length
    while address < end:
        frame = address >> PAGE_SHIFT
        states = storage.frames.state[frame : min(frame + CHUNK, (end - 1 >> PAGE_SHIFT) + 1)]
        secure = states == FrameState.SECURE
        change = np.flatnonzero(secure != secure[0]) if secure.size else np.empty(0)
        count = int(change[0]) if change.size else max(states.size, 1)
        stop = min(end, (frame + count) << PAGE_SHIFT)
        skip = address - (frame << PAGE_SHIFT)
        if secure.size and secure[0]:
            if live:
                data: bytes | bytearray = storage.peek_run(frame, count)
            else:
                storage.export_run(frame, count)
                storage.undo.keep()  # what is encrypted has to be in its frames before they are read
                data = storage.storage.read(frame << PAGE_SHIFT, count << PAGE_SHIFT)
            yield data[skip : skip + stop - address]
        else:
            host_check(storage, address, stop - address)
            yield storage.storage.read(address, stop - address)
        address = stop


def guest_address(storage: SecureStorage, guest: GuestStorage, address: int) -> int:
    """Return the host absolute address that guest absolute ``address`` (origin not included) leads to.

    Raises ProgramInterruption: addressing (5) outside guest storage, to the guest; page translation (11) if the host
    maps nothing there, secure page size (3c), non-secure storage (3e) and violation (3f), to the host.
    """
    page = address >> PAGE_SHIFT
    if not 0 <= page < guest.pages.count:
        raise ProgramInterruption(ProgramCode.ADDRESSING, address)
    frame = guest.frame(page)
    gaddr = address + (guest.origin << PAGE_SHIFT)
    if frame == NO_FRAME or frame >= storage.frames.count:
        raise _interruption(ProgramCode.PAGE_TRANSLATION, gaddr)
    if not storage.holds(guest, page, frame):
        state = storage.frames.state.item(frame)
        foreign_share = state == SHARED_FRAME and storage.frames.owner.item(frame) != guest.serial
        if state == NON_SECURE or foreign_share:
            raise _interruption(ProgramCode.NON_SECURE_STORAGE_ACCESS, gaddr)
        raise _interruption(ProgramCode.SECURE_STORAGE_VIOLATION, gaddr)
    if (
        guest.pages.state.item(page) == PRIVATE
        and frame // LARGE_PAGES not in storage.large
        and guest.space.mapping_size(guest.origin + page) > PAGE_SIZE
    ):
        raise _interruption(ProgramCode.SECURE_PAGE_SIZE, gaddr)
    return (frame << PAGE_SHIFT) + (address & PAGE_SIZE - 1)


def _pieces(storage: SecureStorage, guest: GuestStorage, address: int, length: int) -> list[tuple[int, int]]:
    """Translate all pages of an access before any is made."""
    found = []
    while length:
        size = min(length, PAGE_SIZE - (address & PAGE_SIZE - 1))
        found.append((guest_address(storage, guest, address), size))
        address += size
        length -= size
    return found


def guest_read(storage: SecureStorage, guest: GuestStorage, address: int, length: int) -> bytes:
    """Return what the guest reads at guest absolute ``address``; raises as :func:`guest_address` does."""
    return b"".join(storage.storage.read(at, size) for at, size in _pieces(storage, guest, address, length))


def guest_write(storage: SecureStorage, guest: GuestStorage, address: int, data: Data) -> None:
    """Store for the guest at guest absolute ``address``, all or nothing; raises as :func:`guest_address` does."""
    view, done = memoryview(data).cast("B"), 0
    for at, size in _pieces(storage, guest, address, len(view)):
        storage.storage.write(at, view[done : done + size])
        done += size

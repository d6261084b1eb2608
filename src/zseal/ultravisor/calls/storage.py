"""Calls on pages and frames: import, export, destroy, verify large frame, pin, unpin, share, unshare."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from zseal.arch.interruption import ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.formats.uv_codes import Command, LargeFrame, PageCall, Share
from zseal.formats.uvcb import FrameUvcb, GuestPageUvcb, ShareUvcb
from zseal.ultravisor import sharing
from zseal.ultravisor.addressspace import LARGE_PAGES
from zseal.ultravisor.configuration import Configuration, ConfigurationState
from zseal.ultravisor.events import Level
from zseal.ultravisor.refusal import UvcRefusal
from zseal.ultravisor.state import DONE, Busy, MachineState, Reply, Request
from zseal.ultravisor.tables import FrameState, Index, PageState, consecutive


def _running(machine: MachineState, handle: int) -> Configuration:
    return machine.configuration(handle, ConfigurationState.SECURE, ConfigurationState.RESETTING)


def _page(configuration: Configuration, gaddr: int) -> int:
    page = configuration.guest.page(gaddr)
    if page is None:
        raise UvcRefusal(PageCall.OUTSIDE)
    return page


def frame_of(machine: MachineState, address: int) -> int:
    """Return the frame that begins at absolute ``address``; raises UvcRefusal if there is no storage."""
    if address % PAGE_SIZE:
        raise UvcRefusal(PageCall.OUTSIDE)
    try:
        machine.storage.view(address, PAGE_SIZE).release()
    except ProgramInterruption:
        raise UvcRefusal(PageCall.OUTSIDE) from None
    return address >> PAGE_SHIFT


def import_run(machine: MachineState, handle: int, gaddr: int, length: int) -> None:
    """CONV_TO_SEC_STOR for every page of ``length`` bytes at guest address ``gaddr``."""
    configuration = _running(machine, handle)
    first = _page(configuration, gaddr)
    if length % PAGE_SIZE or first + (length >> PAGE_SHIFT) > configuration.guest.pages.count:
        raise UvcRefusal(PageCall.OUTSIDE)
    try:
        machine.secure.import_run(configuration.guest, first, length >> PAGE_SHIFT)
    except UvcRefusal as refusal:
        if refusal.answer in (PageCall.INTEGRITY, PageCall.LOST):
            page = first + refusal.done
            machine.note(
                Level.ERROR, "page refused", configuration=configuration.guest.serial, page=page,
                reason=refusal.answer.name,
            )  # fmt: skip
        raise


def import_page(machine: MachineState, call: Request[GuestPageUvcb]) -> Reply:
    """CONV_TO_SEC_STOR."""
    import_run(machine, call.uvcb.guest_handle, call.uvcb.gaddr, PAGE_SIZE)
    return DONE


def export_page(machine: MachineState, call: Request[FrameUvcb]) -> Reply:
    """CONV_FROM_SEC_STOR: on a frame that is not secure, nothing to do."""
    machine.secure.export_run(frame_of(machine, call.uvcb.paddr), 1)
    return DONE


def destroy_page(machine: MachineState, call: Request[FrameUvcb]) -> Reply:
    """DESTR_SEC_STOR: on a frame that is not secure, nothing to do."""
    machine.secure.destroy_run(frame_of(machine, call.uvcb.paddr), 1)
    return DONE


def pin_page(machine: MachineState, call: Request[FrameUvcb]) -> Reply:
    """PIN_PAGE_SHARED."""
    sharing.pin(machine.secure, frame_of(machine, call.uvcb.paddr))
    return DONE


def unpin_page(machine: MachineState, call: Request[GuestPageUvcb]) -> Reply:
    """UNPIN_PAGE_SHARED."""
    configuration = _running(machine, call.uvcb.guest_handle)
    sharing.unpin(machine.secure, configuration.guest, _page(configuration, call.uvcb.gaddr))
    return DONE


def verify_large_frame(machine: MachineState, call: Request[GuestPageUvcb]) -> Reply:
    """VERIFY_LARGE_FRAME: 256 private pages in one 1 MiB frame count as one from now on."""
    configuration = _running(machine, call.uvcb.guest_handle)
    guest, table = configuration.guest, machine.secure.frames
    first = (call.uvcb.gaddr // MIB) * LARGE_PAGES - guest.origin
    if first < 0 or first + LARGE_PAGES > guest.pages.count:
        raise UvcRefusal(LargeFrame.RANGE)
    size = guest.space.mapping_size(guest.origin + first)
    if size > MIB:
        raise UvcRefusal(LargeFrame.REGION)
    if size != MIB:
        raise UvcRefusal(LargeFrame.MAPPING)
    frames = guest.space.resolve_run(guest.origin + first, LARGE_PAGES)
    if frames[0] % LARGE_PAGES or not consecutive(frames):
        raise UvcRefusal(LargeFrame.NOT_CONSECUTIVE)
    pages = np.arange(first, first + LARGE_PAGES)
    if frames[-1] >= table.count:
        raise UvcRefusal(LargeFrame.MAPPING)
    private = (guest.pages.state[pages] == PageState.PRIVATE) & (table.state[frames] == FrameState.SECURE)
    if not np.all(private & (table.owner[frames] == guest.serial) & (table.page[frames] == pages)):
        raise UvcRefusal(LargeFrame.NOT_IMPORTED)
    machine.secure.join_large(int(frames[0]))
    return DONE


def _own_page(call: Request[ShareUvcb]) -> int:
    guest = call.guest.guest
    page = guest.absolute_page(call.uvcb.paddr)
    if page is None:
        raise UvcRefusal(Share.ADDRESS)
    return page


def share_page(machine: MachineState, call: Request[ShareUvcb]) -> Reply:
    """SET_SHARED_ACCESS."""
    if sharing.share(machine.secure, call.guest.guest, _own_page(call)) and call.guest.unshared:
        machine.undo.fields(call.guest)
        call.guest.unshared = False
    return DONE


def unshare_page(machine: MachineState, call: Request[ShareUvcb]) -> Reply:
    """REMOVE_SHARED_ACCESS: busy while the host has the page pinned."""
    if not sharing.unshare(machine.secure, call.guest.guest, _own_page(call)):
        raise Busy
    return DONE


@dataclasses.dataclass(frozen=True, eq=False)
class PageCalls:
    """SET_SHARED_ACCESS or REMOVE_SHARED_ACCESS for many pages: single answers, and the execution of all."""

    ready: NDArray[np.uint8]
    """One byte for each page of the guest: 1 if the call would succeed with rc 0001 and only change states."""
    carry_out: Callable[[Index], None]
    """Executes the calls for pages that are ready; raises UvcRefusal, with nothing done, if one no longer is."""


def page_calls(machine: MachineState, guest: Configuration, command: Command) -> PageCalls | None:
    """Return how ``command`` of ``guest`` is executed for many pages; None if its calls have to come one by one."""
    if command.value not in machine.guest_rows or machine.faults.planned(command):
        return None
    if machine.log.level <= Level.DEBUG:
        return None  # each call must be logged
    storage, secure = machine.secure, guest.guest
    if command is Command.SET_SHARED_ACCESS:
        ready, change = sharing.ready_to_share(secure), sharing.share_pages
    elif command is Command.REMOVE_SHARED_ACCESS:
        ready, change = sharing.ready_to_unshare(storage, secure), sharing.unshare_pages
    else:
        return None

    def carry_out(pages: Index) -> None:
        machine.undo.fields(guest)
        change(storage, secure, pages)
        machine.calls[command.value] += len(pages)
        if command is Command.SET_SHARED_ACCESS:
            guest.unshared = False

    return PageCalls(ready.view(np.uint8), carry_out)

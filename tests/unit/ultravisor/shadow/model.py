"""What must become of frames and pages, written from the rules, page by page, with nothing of the implementation in it.

A page's content is a pair: what it is based on (zeros, an image, one particular ciphertext …) and the word at offset
64, the only one that hosts and guests of these tests write. Equal pairs are equal pages.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np

from zseal.arch.interruption import ProgramCode
from zseal.formats.uv_codes import CpuState, Generic, PageCall, ResponseCode
from zseal.ultravisor import MappedSpace

# Kinds of frames and states of pages, in the numbers of the implementation's tables only so that they can be compared.
ORDINARY, DONATED, SECURE, SHARED, PINNED = range(5)
UNUSED, PRIVATE, IS_SHARED, EXPORTED, SHARED_OUT, LOST = range(6)
PAGES = ("unused", "private", "shared", "exported", "shared out", "lost")
KINDS = ("ordinary", "donated", "secure", "shared", "pinned")
MIB_PAGES = 256
NOWHERE = -1
MACHINE = (0, 0)

Content = tuple[int, int]
Owner = tuple[int, int]
ZEROS: Content = (0, 0)
STORED, KERNEL = 1, 2  # bases: the image's page as it is stored, and as its guest finds it
DONE = Generic.EXECUTED


class Phase(enum.Enum):
    """Of a configuration; the values are those of the implementation."""

    CREATED = "created"
    PARAMETERS = "parameters"
    UNPACKING = "unpacking"
    BROKEN = "broken"
    SECURE = "secure"
    RESETTING = "resetting"


RUNNING = (Phase.SECURE, Phase.RESETTING)


@dataclasses.dataclass
class Cpu:
    """``storage`` is the frame donated for it, ``sie`` that of its state description, which stays the host's."""

    handle: int
    storage: int
    sie: int
    state: CpuState = CpuState.STOPPED
    running: bool = False


@dataclasses.dataclass
class Guest:
    """A configuration. ``mapped`` is where the host maps each page, ``frame`` where each resident page is."""

    serial: int
    slot: int
    handle: int
    asce: int
    space: MappedSpace
    pages: int
    origin: int
    donated: tuple[int, ...]
    phase: Phase = Phase.CREATED
    cpu: Cpu | None = None
    unshared: bool = False
    was_reset: bool = False
    unpacked: list[bool] = dataclasses.field(default_factory=list)
    """For each page unpacked so far: whether it was that of the image, at its place."""

    def __post_init__(self) -> None:
        self.state = bytearray(self.pages)
        self.frame = [NOWHERE] * self.pages
        self.mapped = [NOWHERE] * self.pages
        self.plain = [ZEROS] * self.pages
        self.sealed = [ZEROS] * self.pages
        self.large: set[int] = set()
        """The MiB of guest storage that the host maps with one entry."""

    @property
    def stopped(self) -> bool:
        return self.cpu is None or self.cpu.state in (CpuState.STOPPED, CpuState.CHECK_STOP)


class Model:
    """Frames 0 to ``top`` of a machine, and its guests by slot; ``public`` are the words that guests have shared."""

    def __init__(self, top: int, *, transfers: bool) -> None:
        self.top = top
        self.transfers = transfers
        self.kinds = bytearray(top)
        self.owners: list[Owner] = [MACHINE] * top
        self.contents: list[Content] = [ZEROS] * top
        self.words = np.zeros(top, np.uint64)
        self.whole: set[int] = set()
        """The 1 MiB frames that were verified."""
        self.guests: dict[int, Guest] = {}
        self.public: set[int] = set()
        self.serial = 0
        self._bases = KERNEL

    def new_base(self) -> int:
        self._bases += 1
        return self._bases

    def put(self, frame: int, content: Content) -> None:
        self.contents[frame] = content
        self.words[frame] = content[1]

    def alive(self, owner: Owner) -> Guest | None:
        return next((guest for guest in self.guests.values() if guest.serial == owner[0]), None)

    def _set(self, frame: int, kind: int, owner: Owner = MACHINE) -> None:
        self.kinds[frame], self.owners[frame] = kind, owner

    def _part(self, frame: int) -> None:
        """A frame leaves its guest: a 1 MiB frame that it was part of is whole no more."""
        self.whole.discard(frame // MIB_PAGES)

    def situation(self, frame: int, guest: Guest | None = None, page: int = NOWHERE) -> str:
        """What a call finds that is given ``frame``, for ``page`` of ``guest`` if it is about one."""
        if frame == NOWHERE:
            return "unmapped"
        kind, owner = KINDS[self.kinds[frame]], self.owners[frame]
        if self.kinds[frame] < SECURE:
            return kind
        if self.alive(owner) is None:
            return f"{kind}, owner gone"
        if guest is None:
            return kind
        if owner[0] != guest.serial:
            return f"{kind} by another"
        return f"{kind}, the page itself" if owner[1] == page else f"{kind}, another page"

    # ------------------------------------------------------------ donations

    def donate(self, frames: list[int]) -> None:
        for frame in frames:
            self._set(frame, DONATED)

    def give_back(self, frames: list[int]) -> None:
        for frame in frames:
            self._set(frame, ORDINARY)
            self.put(frame, ZEROS)

    # ------------------------------------------------------------ import

    def hindrance(self, guest: Guest, page: int) -> ResponseCode | None:
        """Why ``page`` cannot be brought into the frame that the host maps for it."""
        frame, state = guest.mapped[page], guest.state[page]
        if frame == NOWHERE:
            return PageCall.NOT_MAPPED
        kind, owner = self.kinds[frame], self.owners[frame]
        if kind == DONATED:
            return PageCall.FRAME_DONATED
        mine = kind >= SECURE and owner == (guest.serial, page)
        foreign = self.transfers and kind == SHARED and owner[0] != guest.serial
        if not mine and (not (kind == ORDINARY or foreign) or state in (PRIVATE, IS_SHARED)):
            return PageCall.OWNER
        return PageCall.LOST if state == LOST else None

    def settle(self, guest: Guest, page: int, kind: int) -> None:
        """The page is in the frame that is mapped for it; whoever had that frame has it no more."""
        frame = guest.mapped[page]
        if self.kinds[frame] == SHARED and self.owners[frame][0] != guest.serial:
            self.retire(frame)
        self._set(frame, kind, (guest.serial, page))
        guest.frame[page] = frame
        guest.state[page] = PRIVATE if kind == SECURE else IS_SHARED

    def bring_in(self, guest: Guest, page: int) -> ResponseCode:
        """CONV_TO_SEC_STOR of one page of a running guest."""
        if (answer := self.hindrance(guest, page)) is not None:
            return answer
        frame, state = guest.mapped[page], guest.state[page]
        if state in (PRIVATE, IS_SHARED):
            return DONE
        if state == EXPORTED and self.contents[frame] != guest.sealed[page]:
            return PageCall.INTEGRITY
        self.settle(guest, page, SHARED if state == SHARED_OUT else SECURE)
        if state != SHARED_OUT:
            self.put(frame, guest.plain[page] if state == EXPORTED else ZEROS)
        return DONE

    def adopt(self, guest: Guest) -> int:
        """Every page never used whose frame is an ordinary one that no earlier page names."""
        seen: set[int] = set()
        count = 0
        kinds = bytes(self.kinds)
        for page, frame in enumerate(guest.mapped):
            first = frame not in seen
            seen.add(frame)
            if frame != NOWHERE and first and kinds[frame] == ORDINARY and guest.state[page] == UNUSED:
                self.settle(guest, page, SECURE)
                self.put(frame, ZEROS)
                count += 1
        return count

    # ------------------------------------------------------------ export, destroy

    def retire(self, frame: int) -> None:
        """A shared frame goes to the host, plain."""
        if (guest := self.alive(self.owners[frame])) is not None:
            guest.state[self.owners[frame][1]] = SHARED_OUT
        self._part(frame)
        self._set(frame, ORDINARY)

    def export(self, frame: int, ciphertext: Content) -> ResponseCode:
        """CONV_FROM_SEC_STOR; ``ciphertext`` is what a private page becomes."""
        kind = self.kinds[frame]
        if kind == DONATED:
            return PageCall.DONATED
        if kind == SHARED:
            self.retire(frame)
        elif kind == SECURE:
            owner = self.owners[frame]
            if (guest := self.alive(owner)) is not None:
                guest.state[owner[1]] = EXPORTED
                guest.plain[owner[1]], guest.sealed[owner[1]] = self.contents[frame], ciphertext
            self._part(frame)
            self._set(frame, ORDINARY)
            self.put(frame, ciphertext)
        return DONE

    def destroy(self, frame: int) -> ResponseCode:
        """DESTR_SEC_STOR."""
        kind, owner = self.kinds[frame], self.owners[frame]
        guest = self.alive(owner) if kind >= SECURE else None
        if kind == DONATED:
            return PageCall.DONATED
        if kind == PINNED and guest is not None:
            return PageCall.PINNED
        if kind != ORDINARY:
            if guest is not None:
                guest.state[owner[1]] = LOST if kind == SECURE else SHARED_OUT
            self._part(frame)
            self._set(frame, ORDINARY)
            self.put(frame, ZEROS)
        return DONE

    # ------------------------------------------------------------ sharing

    def publish(self, frame: int) -> None:
        self.public.add(self.contents[frame][1])

    def share(self, guest: Guest, page: int) -> ResponseCode | ProgramCode:
        if not 0 <= page < guest.pages:
            return PageCall.OUTSIDE
        state = guest.state[page]
        if state in (IS_SHARED, SHARED_OUT):
            return DONE
        if state not in (UNUSED, PRIVATE) or (state == UNUSED and self.bring_in(guest, page) is not DONE):
            return ProgramCode.NON_SECURE_STORAGE_ACCESS
        guest.state[page] = IS_SHARED
        self.kinds[guest.frame[page]] = SHARED
        self.publish(guest.frame[page])
        guest.unshared = False
        return DONE

    def unshare(self, guest: Guest, page: int) -> ResponseCode | ProgramCode | None:
        """None stands for condition code 2: the host has the page pinned."""
        if not 0 <= page < guest.pages:
            return PageCall.OUTSIDE
        state = guest.state[page]
        if state == SHARED_OUT:
            return ProgramCode.NON_SECURE_STORAGE_ACCESS
        if state == IS_SHARED:
            if self.kinds[guest.frame[page]] == PINNED:
                return None
            self._hide(guest, page)
        return DONE

    def _hide(self, guest: Guest, page: int) -> None:
        guest.state[page] = PRIVATE
        self.kinds[guest.frame[page]] = SECURE

    def unshare_all(self, guest: Guest) -> None:
        for page, state in enumerate(guest.state):
            if state == IS_SHARED:
                self._hide(guest, page)
            elif state == SHARED_OUT:
                guest.state[page] = UNUSED
        guest.unshared = True

    def pin(self, frame: int) -> ResponseCode:
        kind = self.kinds[frame]
        if kind == DONATED:
            return PageCall.DONATED
        if kind not in (SHARED, PINNED) or self.alive(self.owners[frame]) is None:
            return PageCall.NOT_SHARED
        self.kinds[frame] = PINNED
        return DONE

    def unpin(self, guest: Guest, page: int) -> ResponseCode:
        if guest.state[page] != IS_SHARED:
            return PageCall.NOT_SHARED
        self.kinds[guest.frame[page]] = SHARED
        return DONE

    # ------------------------------------------------------------ the end

    def remove(self, guest: Guest) -> None:
        """DESTROY_SEC_CONF: what the guest had stays secure or shared, without an owner that lives."""
        for page, state in enumerate(guest.state):
            if state == IS_SHARED:
                self.kinds[guest.frame[page]] = SHARED
        self.give_back(list(guest.donated))
        del self.guests[guest.slot]

    def reset(self) -> None:
        """Load-normal reset of the machine: secure and donated storage is cleared, everything forgotten."""
        for frame, kind in enumerate(self.kinds):
            if kind in (SECURE, DONATED):
                self.put(frame, ZEROS)
            self._set(frame, ORDINARY)
        self.guests.clear()
        self.whole.clear()

    # ------------------------------------------------------------ accesses of guests

    def access(self, guest: Guest, page: int) -> ProgramCode | None:
        """What a running guest's access to ``page`` ends in; None where it is made."""
        if not 0 <= page < guest.pages:
            return ProgramCode.ADDRESSING
        frame = guest.mapped[page]
        if frame == NOWHERE:
            return ProgramCode.PAGE_TRANSLATION
        kind, owner = self.kinds[frame], self.owners[frame]
        if kind >= SECURE and owner == (guest.serial, page):
            large = (guest.origin + page) // MIB_PAGES in guest.large
            if guest.state[page] == PRIVATE and large and frame // MIB_PAGES not in self.whole:
                return ProgramCode.SECURE_PAGE_SIZE
            return None
        if kind == ORDINARY or (kind == SHARED and owner[0] != guest.serial):
            return ProgramCode.NON_SECURE_STORAGE_ACCESS
        return ProgramCode.SECURE_STORAGE_VIOLATION

    def resident(self, guest: Guest, page: int) -> bool:
        """Whether ``page`` is in the frame that the host maps for it."""
        frame = guest.mapped[page] if 0 <= page < guest.pages else NOWHERE
        return frame != NOWHERE and self.kinds[frame] >= SECURE and self.owners[frame] == (guest.serial, page)

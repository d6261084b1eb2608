"""A machine with its ultravisor and, beside it, the model of what it must do. After every call both are compared.

What must hold whatever the model says is checked after every call, too: the two tables are a bijection, and no word
that only a guest wrote is where the host can read it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.ultravisor.invariants import tables_agree
from tests.unit.ultravisor.shadow.model import (
    DONATED,
    DONE,
    KERNEL,
    MIB_PAGES,
    NOWHERE,
    SECURE,
    STORED,
    ZEROS,
    Content,
    Guest,
    Model,
)
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.crypto.keyexchange import CURVE, MachineKeys
from zseal.engine.memory import SharedMemory
from zseal.formats.uv_codes import Command, ResponseCode
from zseal.formats.uvcb import InitUvcb, UvcbHeader
from zseal.model.image import seal_image
from zseal.ultravisor import EventLog, Feature, Level, Settings, Ultravisor, UvcRefusal, ValidityIntercept

ORIGIN = 2 << 30
BLOCK, HEADER = 4 * PAGE_SIZE, 6 * PAGE_SIZE  # the host's own; two more frames are its prefix area
WORD, WORD_SIZE = 64, 8
IMAGE_PAGE = 1
SLOT_SIZE = 8
KEYS = MachineKeys(ec.generate_private_key(CURVE()))
ZERO_PAGE = bytes(PAGE_SIZE)
_SECRET, _HOSTS = 0x5EC2E700 << 32, 0x40057000 << 32  # upper halves of words, by who wrote them
_FULL_CHECK = 16  # steps between looks at everything the host can read


def packed(word: int) -> bytes:
    return word.to_bytes(WORD_SIZE, sys.byteorder)


KERNEL_WORD = _SECRET | 1
IMAGE = seal_image([(IMAGE_PAGE * PAGE_SIZE, bytes(WORD) + packed(KERNEL_WORD))], [KEYS.host.public_key()])
PART = IMAGE.components[0]
STORED_PAGE: Content = (STORED, int.from_bytes(PART.stored[WORD : WORD + WORD_SIZE], sys.byteorder))
KERNEL_PAGE: Content = (KERNEL, KERNEL_WORD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """How large a world is: guests at a time and their pages, frames in play, 1 MiB frames in play."""

    guests: int = 3
    pages: int = 8
    frames: int = 26
    large_frames: int = 0

    @property
    def first(self) -> int:
        """The first frame in play."""
        return 16

    @property
    def slots(self) -> int:
        """The frames from here on are what configurations are usually made of."""
        return self.first + self.frames

    @property
    def large(self) -> range:
        """The first frames of the 1 MiB frames in play."""
        begin = -(-(self.slots + self.guests * SLOT_SIZE) // MIB_PAGES) * MIB_PAGES
        return range(begin, begin + self.large_frames * MIB_PAGES, MIB_PAGES)

    @property
    def top(self) -> int:
        """One beyond the last frame that any guest can have."""
        return self.large.stop if self.large_frames else self.slots + self.guests * SLOT_SIZE


SMALL, LARGE = Shape(), Shape(guests=4, pages=2 * MIB_PAGES + 8, large_frames=3)


class GuestBlock:
    """The control block of a guest's call, in storage that is always there."""

    designation = None

    def __init__(self, block: UvcbHeader, size: int = 0) -> None:
        self.data = bytearray(block.pack().ljust(size, b"\0"))

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.data[address : address + length])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.data[address : address + len(data)] = data

    def check(self, address: int, length: int, *, write: bool) -> None:
        pass


class World:
    """The ultravisor under test, ``uv``, and the ``model`` of its machine."""

    def __init__(self, shape: Shape = SMALL, *, transfers: bool = True) -> None:
        features = Feature.LARGE_FRAMES | (Feature.MISC if transfers else Feature(0))
        settings = Settings(
            uv_base_storage=MIB, conf_base_storage=PAGE_SIZE, conf_virtual_base=PAGE_SIZE, conf_virtual_per_mib=0,
            features=features,
        )  # fmt: skip
        self.shape = shape
        self.storage = SharedMemory(ORIGIN + MIB)
        self.uv = Ultravisor(self.storage, KEYS, settings=settings, log=EventLog(level=Level.ERROR, capacity=1))
        self.host, self.firmware = self.uv.host, self.uv.firmware
        self.model = Model(shape.top, transfers=transfers)
        self._view = self.storage.view(0, shape.top * PAGE_SIZE)
        self._raw = np.frombuffer(self._view, np.uint64).reshape(shape.top, -1)[:, WORD // WORD_SIZE]
        self._unwatched = np.ones(shape.top, bool)
        self._unwatched[shape.first :] = False
        self._tokens = 1
        self._seen: set[bytes] = set()
        self.old: list[tuple[bytes, Content]] = []
        """Ciphertext to replay."""
        self.steps = 0
        self.met: set[tuple[str, str]] = set()
        """Calls that were given a frame, each with what the frame was then."""
        self.initialise()

    def close(self) -> None:
        del self._raw
        self._view.release()
        self.storage.close()

    def initialise(self) -> None:
        self.expect(InitUvcb.call(Command.INIT_UV, stor_origin=ORIGIN, stor_len=MIB), DONE)

    # ------------------------------------------------------------ calls

    def issue(self, block: UvcbHeader) -> tuple[int, int, bytes]:
        self.host.write(BLOCK, block.pack())
        cc = self.host.call(BLOCK)
        answer = self.host.read(BLOCK, type(block).SIZE)
        header = UvcbHeader.unpack(answer)
        assert (cc == 0) == (header.rc == 1)
        return header.rc, header.rrc, answer

    def expect(self, block: UvcbHeader, wanted: ResponseCode) -> bytes:
        rc, rrc, answer = self.issue(block)
        assert (rc, rrc) == (wanted.rc, wanted.rrc or 0), (block, hex(rc), hex(rrc), wanted)
        return answer

    def expect_run(self, action: Callable[[], None], wanted: tuple[int, ResponseCode | None]) -> None:
        """``wanted``: the pages done, and why no more."""
        try:
            action()
        except UvcRefusal as refusal:
            assert (refusal.done, refusal.answer) == wanted
        else:
            assert wanted[1] is None, wanted

    def outcome(self, action: Callable[[], object]) -> object:
        """What ``action`` returns, or the code of the interruption that it ends in, or why the guest is not entered."""
        try:
            return action()
        except ProgramInterruption as interruption:
            return interruption.code
        except ValidityIntercept as intercept:
            return intercept.reason

    def secret(self) -> int:
        """A word that only a guest writes."""
        self._tokens += 1
        return _SECRET | self._tokens

    def hosts(self, number: int) -> int:
        """A word of the host's."""
        return _HOSTS | number

    def meet(self, call: str, frame: int, guest: Guest | None = None, page: int = NOWHERE) -> None:
        """Note that ``call`` is about to find ``frame``."""
        self.met.add((call, self.model.situation(frame, guest, page)))

    # ------------------------------------------------------------ contents

    def page(self, frame: int) -> bytes:
        """What is in a frame, whoever may see it."""
        return self.storage.read(frame * PAGE_SIZE, PAGE_SIZE)

    def unknown(self, frame: int) -> Content:
        """The frame's content as something new: ciphertext, or what a cipher made of bytes that were no image's."""
        return self.model.new_base(), int(self._raw[frame])

    def sealed(self, frame: int) -> Content:
        """What a private page became when it was exported from ``frame``."""
        data = self.page(frame)
        assert data not in self._seen, "neither counter nor tweak ever repeats"
        self._seen.add(data)
        if len(self._seen) > 1000:
            self._seen.clear()
        content = self.unknown(frame)
        self.old = [*self.old[-20:], (data, content)]
        return content

    def visible(self, frame: int) -> bool:
        return self.model.kinds[frame] not in (SECURE, DONATED)

    # ------------------------------------------------------------ what must hold after every call

    def check(self) -> None:
        model, machine, top = self.model, self.uv._machine, self.shape.top
        self.steps += 1
        states = machine.secure.frames.state[:top]
        # whatever the model says: one frame a page, one page a frame, and nothing of a guest's in sight
        tables_agree(self.uv, top)
        hidden = (states == SECURE) | (states == DONATED)
        shown = self._raw[~(hidden | self._unwatched)]
        for word in shown[shown >> 32 == _SECRET >> 32].tolist():
            assert word in model.public, f"the host can read {word:#x}, which only a guest wrote"
        # what the model says
        assert states.tobytes() == bytes(model.kinds)
        assert np.array_equal(self._raw[self.shape.first :], model.words[self.shape.first :])
        assert machine.secure.large == model.whole
        assert {each.guest.serial for each in machine.configurations.values()} == {
            guest.serial for guest in model.guests.values()
        }
        for guest in model.guests.values():
            configuration = machine.configurations[guest.handle]
            assert configuration.state.value == guest.phase.value
            assert configuration.guest.pages.state.tobytes() == bytes(guest.state)
            cpu = configuration.cpus.get(0)
            assert (guest.cpu is None) == (cpu is None)
            if guest.cpu is not None and cpu is not None:
                assert (cpu.state, cpu.running) == (guest.cpu.state, guest.cpu.running)
        every = range(self.shape.first, top) if self.steps % _FULL_CHECK == 0 and top < 1000 else ()
        for frame in (*every, self.shape.first + self.steps * 7 % (top - self.shape.first)):
            self._check_access(frame)

    def _check_access(self, frame: int) -> None:
        """What the host really gets there."""
        found = self.outcome(lambda: self.host.read(frame * PAGE_SIZE + WORD, WORD_SIZE))
        if self.visible(frame):
            assert found == packed(self.model.contents[frame][1])
            if self.model.contents[frame] == ZEROS:
                assert self.page(frame) == ZERO_PAGE
        else:
            assert found is ProgramCode.SECURE_STORAGE_ACCESS

    def content_as_its_guest_finds_it(self, guest: Guest, page: int) -> None:
        address = page * PAGE_SIZE + WORD
        wanted: object = self.model.access(guest, page)
        if wanted is None:
            wanted = packed(self.model.contents[guest.mapped[page]][1])
        assert self.outcome(lambda: self.firmware.guest_read(guest.handle, address, WORD_SIZE)) == wanted

"""What can be looked at: page maps, snapshots, the event log; and that no secret is in any of them."""

from __future__ import annotations

import io
import json
import threading
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from zseal.arch.storage import MIB, PAGE_SHIFT, PAGE_SIZE
from zseal.formats.uv_codes import Command
from zseal.formats.uvcb import FrameUvcb
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine
from zseal.ultravisor import EventLog, Level, UvEvent
from zseal.ultravisor.pagemap import GUEST_KINDS, PageMap


@pytest.fixture
def busy_guest(guest: ModelGuest) -> ModelGuest:
    """A guest with a page in every state: 0x30 pinned, 0x31 shared, 0x40 exported, 0x41 lost, 0x50 shared out."""
    host = guest.host
    for page in (0x30, 0x31, 0x40, 0x41, 0x50):
        guest.write(page << PAGE_SHIFT, b"x")

    def call(command: Command, page: int) -> None:
        host.call(FrameUvcb.call(command, paddr=guest.configuration.space.resolve(page) << PAGE_SHIFT))

    guest.share(0x30000, 2 * PAGE_SIZE)
    guest.share(0x50000)
    call(Command.PIN_PAGE_SHARED, 0x30)
    call(Command.CONV_FROM_SEC_STOR, 0x40)
    call(Command.DESTR_SEC_STOR, 0x41)
    call(Command.CONV_FROM_SEC_STOR, 0x50)
    return guest


def test_map_names_every_state(busy_guest: ModelGuest) -> None:
    uv = busy_guest.machine.ultravisor
    picture = uv.host.guest_map(busy_guest.handle)
    assert picture.counts() == {
        "unused": 247, "private": 4, "shared": 1, "exported": 1, "shared, not resident": 1, "lost": 1, "pinned": 1,
    }  # fmt: skip
    assert (0x30, 1, "pinned") in picture.runs()
    assert sum(count for _, count, _ in picture.runs()) == 256
    assert "0x000000040000-0x000000040fff         1 exported\n" in picture.to_text()
    frames = uv.host.frame_map()
    assert frames.counts()["donated"] * PAGE_SIZE == uv.snapshot().donated_bytes
    part = uv.host.frame_map(2 << 30, MIB)
    assert part.runs() == [(1 << 19, 256, "donated")]


def test_map_as_terminal_cells(busy_guest: ModelGuest) -> None:
    picture = busy_guest.machine.ultravisor.host.guest_map(busy_guest.handle)
    plain = picture.to_terminal(width=16, height=16, colour=False)
    rows = plain.splitlines()
    assert rows[0] == "guest 1: 256 pages, 1 a cell"
    assert rows[4] == "0x000000030000 Ps.............."
    assert "\x1b" not in plain
    assert "P pinned: 1" in rows
    coloured = picture.to_terminal()
    assert "\x1b[48;2;213;94;0m" in coloured
    assert coloured.rstrip().endswith("1")
    bucketed = picture.to_terminal(width=4, height=4, colour=False).splitlines()
    assert bucketed[0].endswith("16 a cell")
    assert bucketed[1].endswith("###P")  # the state that shows most wins


def test_map_as_png_and_svg(busy_guest: ModelGuest) -> None:
    picture = busy_guest.machine.ultravisor.host.guest_map(busy_guest.handle)
    image = Image.open(io.BytesIO(picture.to_png(width=16, scale=2, legend=False))).convert("RGB")
    assert image.size == (32, 32)
    explained = Image.open(io.BytesIO(picture.to_png(width=16, scale=2))).convert("RGB")
    assert explained.crop((0, 0, 32, 32)).tobytes() == image.tobytes()
    legend = explained.crop((0, 32, *explained.size)).getcolors()
    assert legend is not None
    shown = [kind.colour for kind in GUEST_KINDS.values() if kind.name in picture.counts()]
    assert {colour for _, colour in legend} >= set(shown)
    assert image.getpixel((0, 6)) == (213, 94, 0)
    assert image.getpixel((2, 7)) == (230, 159, 0)
    svg = ElementTree.fromstring(picture.to_svg(width=16))
    fills = [each.get("fill") for each in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert "#d55e00" in fills
    texts = [each.text for each in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "pinned: 1" in texts
    assert {"0x0", "0x60000"} <= set(texts)
    assert len(picture.to_svg()) < 20_000


def test_maps_of_large_and_empty_guests_stay_small() -> None:
    states = np.zeros(16 << 20, np.uint8)
    states[12345] = 2
    large = PageMap("large", states, GUEST_KINDS)
    assert len(large.to_svg()) < 100_000
    assert len(large.to_png(width=1024, scale=1)) < 100_000
    assert large.to_terminal(colour=False).count("s") > 0
    empty = PageMap("empty", np.zeros(0, np.uint8), GUEST_KINDS)
    assert empty.runs() == []
    assert empty.to_text() == ""
    assert "0 pages" in empty.to_terminal()
    assert "0 pages" in empty.to_svg()
    empty.to_png()


def test_snapshot_is_json_and_adds_up(busy_guest: ModelGuest) -> None:
    snapshot = busy_guest.machine.ultravisor.snapshot()
    data = json.loads(json.dumps(snapshot.to_json()))
    assert data["initialised"] is True
    assert sum(data["frames"].values()) * PAGE_SIZE == data["storage_bytes"]
    (guest,) = data["configurations"]
    assert sum(guest["pages"].values()) * PAGE_SIZE == guest["storage_bytes"]
    assert guest["cpus"] == [{"number": 0, "state": "OPERATING"}]
    assert data["calls"]["PIN_PAGE_SHARED"] == 1
    assert guest["exports"] == 1


def test_event_log_keeps_levels_and_order(machine: ModelMachine) -> None:
    seen: list[UvEvent] = []
    log = EventLog(level=Level.DEBUG, capacity=20, listener=seen.append)
    other = ModelMachine(keys=machine.keys, log=log)
    guest = ModelGuest(other)
    guest.start()
    guest.share(0x30000, 16 * PAGE_SIZE)
    assert len(log.events()) == 20
    assert [event.sequence for event in seen] == list(range(len(seen)))
    shared = next(event for event in seen if event.name == "SET_SHARED_ACCESS")
    assert (shared.level, shared.details) == (Level.DEBUG, {"configuration": 1, "paddr": 0x30000})
    assert any(event.name == "image verified" for event in seen)
    other.host.issue(FrameUvcb.call(Command.PIN_PAGE_SHARED, paddr=0))
    refused = log.events(level=Level.WARNING)[-1]
    assert "call refused" in str(refused)
    assert refused.details["rc"] == 0x105
    other.close()


def test_event_log_can_be_read_while_it_grows() -> None:
    log, enough = EventLog(level=Level.DEBUG, capacity=5000), threading.Event()

    def write() -> None:
        while not enough.is_set():
            log.add(Level.INFO, "event")

    writers = [threading.Thread(target=write, daemon=True) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(300):
            numbers = [event.sequence for event in log.events()]
            first = numbers[0] if numbers else 0
            assert numbers == list(range(first, first + len(numbers)))
    finally:
        enough.set()
        for writer in writers:
            writer.join()


def test_nothing_that_can_be_looked_at_holds_a_secret(busy_guest: ModelGuest) -> None:
    uv = busy_guest.machine.ultravisor
    configuration = uv.firmware.configuration(busy_guest.handle)
    assert configuration.accepted is not None
    sealer = configuration.guest.sealer
    secrets = [configuration.accepted.cck, sealer._encryption, sealer._nonce]
    shown = [
        json.dumps(uv.snapshot().to_json()),
        repr(uv.snapshot()),
        repr(configuration.accepted),
        repr(configuration),
        *map(str, uv.log.events()),
    ]
    for secret in secrets:
        plain = secret.reveal()
        for text in shown:
            assert plain.hex() not in text
            assert repr(plain)[2:-1] not in text

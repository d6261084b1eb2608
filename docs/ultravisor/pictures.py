"""Makes the pictures of docs/ultravisor.md from a run of the real thing: ``python docs/ultravisor/pictures.py``."""

from __future__ import annotations

import io
from pathlib import Path

from zseal.arch.storage import MIB, PAGE_SHIFT
from zseal.formats.uv_codes import Command
from zseal.formats.uvcb import FrameUvcb
from zseal.model.devices import BlockDriver
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine

_WIDTH, _CELL = 64, 9


def pictures() -> dict[str, str]:
    """Return the SVG files by name."""
    machine = ModelMachine()
    guest = ModelGuest(machine, memory=2 * MIB)
    guest.start()
    uv = machine.ultravisor
    made = {}

    def take(name: str) -> None:
        made[f"{name}.svg"] = uv.host.guest_map(guest.handle).to_svg(width=_WIDTH, cell=_CELL)

    for at in range(0x40000, 0x90000, 0x1000):
        guest.write(at, b"the guest at work")
    take("1-running")
    driver = BlockDriver(guest, io.BytesIO(bytes(MIB)), 0x100000, slots=48)
    driver.write(0, 0x40000, 0x4000)
    take("2-sharing")
    for page in range(0x50, 0x80):
        guest.pager.page_out(page)
    guest.pager.pin(0x101)
    take("3-paging")
    first, last = guest.configuration.base_frame, max(frame for _, frame in guest.configuration.space.mapped())
    area = uv.host.frame_map(first << PAGE_SHIFT, (last + 1 - first) << PAGE_SHIFT)
    made["4-host.svg"] = area.to_svg(width=_WIDTH, cell=_CELL)
    lost = guest.configuration.space.resolve(0x85) << PAGE_SHIFT
    machine.host.call(FrameUvcb.call(Command.DESTR_SEC_STOR, paddr=lost))
    machine.host.destroy(guest.configuration, keep_pages=True)
    made["5-after.svg"] = uv.host.frame_map(first << PAGE_SHIFT, (last + 1 - first) << PAGE_SHIFT).to_svg(
        width=_WIDTH, cell=_CELL
    )
    machine.close()
    return made


if __name__ == "__main__":
    for name, text in pictures().items():
        (Path(__file__).parent / name).write_text(text)

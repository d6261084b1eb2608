"""The page about a run, as a real browser shows it: on a phone, on a desktop, without network."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.waiting import PATIENCE
from zseal.guest.guest import Guest
from zseal.guest.records import DeviceTraffic
from zseal.guest.watch.html import STATE_COLOURS, render_html
from zseal.hostkeys.machine import Machine

if TYPE_CHECKING:
    from tests.integration.control.conftest import MEMORY, Seal
else:
    MEMORY, Seal = 32 << 20, object

pytestmark = pytest.mark.qemu

PHONE, DESKTOP = 390, 1200
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # what the browser itself wants from the network it does not get
]

# The page lies in a frame as wide as the screen in question: windows of a headless browser have a minimum width.
HARNESS = """<!DOCTYPE html><body style="margin:0"><iframe style="border:0;width:{width}px;height:2600px"></iframe>
<script>
const frame = document.querySelector("iframe"), blocked = [];
frame.onload = () => {{
  const page = frame.contentDocument, root = page.documentElement;
  page.addEventListener("securitypolicyviolation", event => blocked.push(event.blockedURI));
  const late = page.createElement("style"); page.head.append(late);  // violations at parse time are reported after load
  const wide = [...page.querySelectorAll("body *")].filter(each => !each.closest(".scroll, pre, svg")
    && each.getBoundingClientRect().right > frame.clientWidth + 0.5).map(each => each.tagName);
  const small = [...page.querySelectorAll("p, td, th, figcaption, li, pre, h1, h2")]
    .filter(each => parseFloat(frame.contentWindow.getComputedStyle(each).fontSize) < 12).map(each => each.tagName);
  setTimeout(() => {{
    document.body.dataset.found = JSON.stringify({{
      width: frame.clientWidth, content: root.scrollWidth, wide, small, blocked,
      loaded: frame.contentWindow.performance.getEntriesByType("resource").map(each => each.name),
      headings: [...page.querySelectorAll("h2")].map(each => each.textContent),
      marks: page.querySelectorAll("svg polygon, svg rect").length,
    }});
  }}, 300);
}};
frame.srcdoc = {page};
</script></body>"""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the browser found in the page."""

    width: int
    content: int
    wide: list[str]
    small: list[str]
    blocked: list[str]
    loaded: list[str]
    headings: list[str]
    marks: int


class Browser:
    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium")
        assert program, "chromium is not installed (Debian: apt-get install chromium)"
        self._program = program
        self._folder = folder

    def _run(self, page: str, width: int, *arguments: str) -> str:
        harness = self._folder / "harness.html"
        harness.write_text(HARNESS.format(width=width, page=json.dumps(page).replace("</", "<\\/")))
        profile = f"--user-data-dir={self._folder / 'profile'}"
        ended = subprocess.run(
            [self._program, *FLAGS, profile, f"--window-size={max(width, 500)},2600", *arguments, harness.as_uri()],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def look(self, page: str, width: int) -> Seen:
        found = re.search(r'data-found="([^"]*)"', self._run(page, width, "--virtual-time-budget=3000", "--dump-dom"))
        assert found, "the page was not loaded"
        return Seen(**json.loads(html.unescape(found[1])))

    def picture(self, page: str, width: int) -> Image.Image:
        file = self._folder / f"{width}.png"
        self._run(page, width, "--virtual-time-budget=3000", f"--screenshot={file}")
        return Image.open(file).convert("RGB").crop((0, 0, width, 2600))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return Browser(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def page(machine: Machine, seal: Seal) -> str:
    """The page about a real run, with the traffic of a device that nothing measured."""
    words = f"marker=secret share=300 nap=1500 unshare=100 say={'long' * 60} say=<script>alert(1)</script> nap=1500"
    with Guest(seal(words), machine=machine, memory=MEMORY, record=True, timeout=PATIENCE) as guest:
        assert guest.wait(PATIENCE) is not None
        record = guest.record
    assert [phase.name for phase in record.phases][:3] == ["starting", "bootloader", "unpack"]
    assert len(record.samples) >= 5
    return render_html(
        dataclasses.replace(record, devices=[DeviceTraffic("virtio-blk 0.0.0001", 0, 1234, 56789012, 3456789, 17, 2)])
    )


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_page_fits_the_screen_and_loads_nothing(browser: Browser, page: str, width: int) -> None:
    seen = browser.look(page, width)
    assert seen.width == width
    assert seen.content <= width
    assert seen.wide == seen.small == seen.loaded == seen.blocked == []
    assert seen.headings == [
        *("Phases", "Pages by state", "Page-state map over time", "Ultravisor calls", "Device traffic", "Console"),
    ]
    assert seen.marks > 10


def test_shared_pages_are_seen_on_a_phone(browser: Browser, page: str) -> None:
    """The picture has the colours of private and shared pages, in more than a legend's patch."""
    image = browser.picture(page, PHONE)
    colours = {colour: count for count, colour in image.getcolors(1 << 24) or []}

    def pixels(state: str) -> int:
        red, green, blue = bytes.fromhex(STATE_COLOURS[state][1:])
        return colours.get((red, green, blue), 0)

    assert pixels("private") > 20_000
    assert pixels("shared") > 500


def test_the_check_finds_what_it_is_for(browser: Browser, page: str) -> None:
    """A page that is too wide, in small print and wants a picture from the network is found out."""
    bad = '<p style="width:2000px;font-size:6px">wide</p><img src="http://example.invalid/picture.png">'
    seen = browser.look(page.replace("</main>", f"{bad}</main>"), PHONE)
    assert seen.content > PHONE
    assert "P" in seen.wide
    assert seen.small == ["P"]
    assert seen.blocked or seen.loaded

"""The page about a run: self-contained, complete, and harmless whatever the guest printed."""

import re
import xml.etree.ElementTree as ET

from zseal.guest.records import DeviceTraffic, Phase, RunRecord, Sample
from zseal.guest.watch.html import page_map, render_html


def record(console: str = "hello") -> RunRecord:
    return RunRecord(
        title="debian.img on machine demo",
        outcome="The guest powered off.",
        facts={"Memory": "1 GiB", "CPUs": "1"},
        phases=[Phase("loading", 0, 0.3), Phase("unpacking", 0.3, 0.35), Phase("kernel", 0.35, 3.2)],
        samples=[
            Sample(0.3, {"unprotected": 262144}, {}, [("unprotected", 262144)]),
            Sample(
                3.2,
                {"private": 260087, "shared": 2057},
                {"SET_SHARED_ACCESS": 2057, "QUI": 1},
                [("private", 130000), ("shared", 2057), ("private", 130087)],
            ),
        ],
        devices=[DeviceTraffic("virtio-blk 0.0.0001", 0, 12, 4096, 65536, 17, 0)],
        console=console,
    )


def test_the_page_holds_every_number_as_text_and_loads_nothing() -> None:
    page = render_html(record())
    for text in (
        "2,057",
        "SET_SHARED_ACCESS",
        "virtio-blk 0.0.0001, queue 0",
        "65,536",
        "unpacking",
        "0.050 s",
        "1 GiB",
    ):
        assert text in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=|url\(|@import|https?:", page)
    assert '<meta name="viewport"' in page
    assert "private" in page.split('id="page-state-map-over-time"')[1]


def test_what_the_guest_prints_stays_text() -> None:
    page = render_html(record("<script>alert(1)</script>\x1b[31m\x00 & 'x'"))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", page)


def cell_colours(picture: str) -> dict[str, int]:
    widths: dict[str, int] = {}
    for shape in ET.fromstring(picture).iter("rect"):
        widths[shape.attrib["fill"]] = widths.get(shape.attrib["fill"], 0) + int(shape.attrib["width"])
    return widths


def test_a_single_shared_page_among_a_million_is_seen_in_the_map() -> None:
    widths = cell_colours(page_map([("private", 700_000), ("shared", 1), ("private", 300_000)]))
    assert widths["#e69f00"] == 1
    assert sum(widths.values()) == 128 * 24


def test_a_map_of_fewer_pages_than_cells_fills_its_cells_in_proportion() -> None:
    widths = cell_colours(page_map([("private", 2), ("shared", 2)]))
    assert widths == {"#0072b2": 128 * 12, "#e69f00": 128 * 12}


def test_a_run_without_samples_or_devices_is_a_page_all_the_same() -> None:
    page = render_html(RunRecord(title="t", outcome="It was refused.", facts={}, phases=[], samples=[]))
    assert "It was refused." in page
    assert "No device moved data." in page

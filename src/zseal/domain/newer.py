"""Elements and attributes of domain XML that libvirt got after release 9.0.0, the oldest that zseal works with.

An installed schema that is older than one of them rejects it through no fault of the document, and a target that is
older does not support it. Source: the differences between the schemas of libvirt 9.0.0 and 11.3.0, and the releases
that its news and its documentation of the domain format name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from zseal.domain.document import Element
from zseal.domain.versions import Version

NEWER: tuple[tuple[str, Version], ...] = (
    ("cpu@deprecated_features", (11, 0, 0)),
    ("cpu/maxphysaddr@limit", (9, 3, 0)),
    ("cpu/topology@clusters", (10, 1, 0)),
    ("features/aia", (11, 1, 0)),
    ("features/async-teardown", (9, 6, 0)),
    ("features/ps2", (10, 7, 0)),
    ("features/ras", (10, 4, 0)),
    ("iothreadids/iothread/poll", (9, 4, 0)),
    ("launchSecurity@type=sev-snp", (10, 5, 0)),
    ("os/loader@format", (9, 2, 0)),
    ("os/nvram@format", (9, 2, 0)),
    ("os/nvram@templateFormat", (10, 10, 0)),
    ("os/shim", (11, 2, 0)),
    ("throttlegroups", (11, 2, 0)),
    ("devices/audio@type=pipewire", (9, 10, 0)),
    ("devices/controller/driver/iothreads", (11, 2, 0)),
    ("devices/controller/target@memReserve", (10, 3, 0)),
    ("devices/crypto", (9, 1, 0)),
    ("devices/disk@type=vhostvdpa", (9, 8, 0)),
    ("devices/disk/driver/iothreads", (10, 0, 0)),
    ("devices/disk/driver@discard_no_unref", (9, 5, 0)),
    ("devices/disk/source/dataStore", (10, 10, 0)),
    ("devices/disk/throttlefilters", (11, 2, 0)),
    ("devices/filesystem/binary/openfiles", (10, 6, 0)),
    ("devices/filesystem/idmap", (10, 0, 0)),
    ("devices/hostdev/driver@model", (10, 0, 0)),
    ("devices/interface/mac@currentAddress", (11, 2, 0)),
    ("devices/memory/target@dynamicMemslots", (10, 1, 0)),
    ("devices/panic@model=pvpanic", (9, 1, 0)),
    ("devices/pstore", (10, 6, 0)),
    ("devices/sound@model=virtio", (10, 4, 0)),
    ("devices/watchdog@model=itco", (9, 1, 0)),
)
"""A path of elements, an attribute and a value of it as far as they matter, and the release that has it first."""

_PATH = re.compile(r"(?P<elements>[\w/-]+)(?:@(?P<attribute>\w+)(?:=(?P<value>.+))?)?")


@dataclasses.dataclass(frozen=True)
class NewerPart:
    """A part of a domain that not every libvirt has: an element, or one of its ``attribute`` s without a value."""

    element: Element
    attribute: str
    name: str
    since: Version


def newer_parts(root: Element, than: Version) -> Iterator[NewerPart]:
    """Yield the parts of the domain that libvirt got after the release ``than``, by the order of the table."""
    for path, since in NEWER:
        match = _PATH.fullmatch(path)
        if since <= than or match is None:
            continue
        attribute, value = match["attribute"] or "", match["value"]
        for element in _below(root, match["elements"].split("/")):
            if value is not None and element.get(attribute) == value:
                yield NewerPart(element, "", f"{attribute}='{value}' of <{element.name}>", since)
            elif value is None and attribute in element.attributes:
                yield NewerPart(element, attribute, f"{attribute}= of <{element.name}>", since)
            elif not attribute:
                yield NewerPart(element, "", f"<{element.name}>", since)


def _below(element: Element, tags: list[str]) -> Iterator[Element]:
    if not tags:
        yield element
        return
    for child in element.all(tags[0]):
        yield from _below(child, tags[1:])

"""The trust boundary is a type: what plays a host has the host's side of the ultravisor and leads to nothing more."""

from __future__ import annotations

import ast
import inspect
import io
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType

import pytest

from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys
from zseal.engine.memory import SharedMemory
from zseal.guest import host_view
from zseal.guest.audit import pages, policy, queue
from zseal.guest.audit.pages import SharedPages
from zseal.guest.host_view import HostView
from zseal.guest.paging import page_file, paging
from zseal.hypervisor import host_side, uvcalls
from zseal.hypervisor.host_side import HostSide
from zseal.hypervisor.vmm import Vmm
from zseal.model import devices, host, pager
from zseal.model.devices import BlockDriver
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine
from zseal.secret import Secret
from zseal.ultravisor import FirmwareInterface, HostInterface, Ultravisor
from zseal.ultravisor.configuration import Configuration, SecureCpu
from zseal.ultravisor.securestorage import GuestStorage, SecureStorage
from zseal.ultravisor.state import MachineState

BEYOND_THE_HOST = (
    Configuration, FirmwareInterface, GuestStorage, MachineKeys, MachineState, ModelGuest, ModelMachine, Secret,
    SecureCpu, SecureStorage, SharedMemory, Ultravisor, Vmm,
)  # fmt: skip
PLAYING_THE_HOST = (devices, host, pager, host_side, uvcalls, host_view, paging, page_file, pages, policy, queue)
OF_THE_HOST = {
    "zseal.ultravisor.host", "zseal.ultravisor.addressspace", "zseal.ultravisor.refusal", "zseal.ultravisor.tables"
}  # fmt: skip
PLAIN = (str, bytes, bytearray, int, float, bool, type, type(None), ModuleType)


def _next(thing: object) -> Iterator[tuple[str, object]]:
    """What can be reached from ``thing`` in one step: attributes, private ones too, items, and what methods hold."""
    for name, value in getattr(thing, "__dict__", {}).items():
        yield f".{name}", value
    for name in getattr(type(thing), "__slots__", ()):
        yield f".{name}", getattr(thing, name, None)
    if isinstance(thing, dict):
        yield from ((f"[{key!r}]", value) for key, value in thing.items())
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from ((f"[{number}]", value) for number, value in enumerate(thing))
    elif isinstance(thing, MethodType):
        yield ".__self__", thing.__self__
    elif isinstance(thing, FunctionType):
        yield from ((".__closure__", cell.cell_contents) for cell in thing.__closure__ or ())


def reached(start: object) -> Iterator[str]:
    """The ways from ``start`` to what a host does not have; what the host's side keeps to itself is not followed."""
    seen, waiting = {id(start)}, [("", start)]
    while waiting:
        way, thing = waiting.pop()
        if isinstance(thing, BEYOND_THE_HOST):
            yield way
        elif not isinstance(thing, PLAIN):
            for name, value in () if isinstance(thing, HostInterface) else _next(thing):
                if id(value) not in seen:
                    seen.add(id(value))
                    waiting.append((way + name, value))


@pytest.fixture
def busy(machine: ModelMachine, guest: ModelGuest) -> ModelGuest:
    guest.share(0x30000)
    guest.write(0x40000, b"private")
    return guest


def test_what_plays_the_host_has_no_way_to_more(machine: ModelMachine, busy: ModelGuest) -> None:
    device = BlockDriver(busy, io.BytesIO(bytes(MIB)), 0x80000, slots=8).device
    side = HostSide(machine.ultravisor.host, MIB, configuration=busy.handle, protected=True)
    shared = SharedPages(side)
    for each in (machine.host, busy.pager, device, side, shared, HostView(side)):
        assert list(reached(each)) == []
    assert ".host.uv" not in list(reached(machine)), "the walk itself would find it"
    assert list(reached({"a": [busy.host, machine.keys]})) == ["['a'][1]"]


def test_the_hypervisor_gives_the_host_side_and_no_more() -> None:
    ram = SharedMemory(16 * MIB)
    vmm = Vmm(ram, 1, ModelMachine(memory=MIB).keys)
    assert list(reached(vmm.host_side)) == []
    vmm.close()
    ram.close()


def test_nothing_the_host_is_given_leads_further(machine: ModelMachine, busy: ModelGuest) -> None:
    uv, handle = machine.ultravisor.host, busy.handle
    frame = busy.configuration.space.resolve(0x30) * PAGE_SIZE
    given = {
        "settings": uv.settings,
        "initialised": uv.initialised,
        "read": uv.read(frame, 16),
        "view": uv.view(frame, PAGE_SIZE),
        "view_pieces": list(uv.view_pieces(frame, PAGE_SIZE, live=True)),
        "first_unshared": uv.first_unshared(handle, 0, MIB),
        "is_shared": uv.is_shared(handle, 0x30000, 1),
        "page_states": uv.page_states(handle),
        "private_pages": uv.private_pages(handle),
        "page_counts": uv.page_counts(handle),
        "guest_map": uv.guest_map(handle),
        "frame_map": uv.frame_map(),
    }
    for name, value in given.items():
        assert list(reached(value)) == [], name
    nothing_returned = {
        name
        for name, each in vars(HostInterface).items()
        if isinstance(each, FunctionType) and inspect.signature(each).return_annotation in ("None", "int")
    }
    public = {name for name in vars(HostInterface) if not name.startswith("_")}
    assert public == set(given) | {name for name in nothing_returned if not name.startswith("_")}


def test_page_states_are_not_the_hosts_to_change(machine: ModelMachine, busy: ModelGuest) -> None:
    states = machine.ultravisor.host.page_states(busy.handle)
    with pytest.raises(ValueError, match="read-only"):
        states[0x40] = states[0x30]


def test_the_two_sides_share_no_name() -> None:
    sides = [{name for name in vars(each) if name[0] != "_"} for each in (HostInterface, FirmwareInterface)]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize("module", PLAYING_THE_HOST, ids=lambda module: module.__name__)
def test_code_that_plays_the_host_names_nothing_beyond_it(module: ModuleType) -> None:
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zseal.ultravisor"):
            assert node.module in OF_THE_HOST, node.module
        if isinstance(node, ast.ImportFrom):
            assert node.module != "zseal.hypervisor.vmm"
            assert "Ultravisor" not in {each.name for each in node.names}
        private = isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if private and isinstance(node, ast.Attribute):
            assert ast.unparse(node.value) in ("self", "cls", "mmap"), ast.unparse(node)

"""``Guest(engine="embedded")``: everything the class offers, without QEMU; and what is refused."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from tests.waiting import PATIENCE
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.engine.devices import Disk, RandomSource, UserNetwork
from zseal.engine.errors import EngineError
from zseal.errors import InputError, MissingDependencyError, UsageError
from zseal.guest.engines import EngineName, available_engine
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.guest.paging.paging import PageIntegrityError
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.testguest import kernel
from zseal.ultravisor.image.unpack_ahead import UnpackAhead
from zseal.ultravisor.image.unpacking import Unpacked

MEMORY = 8 * MIB
MARKER = 0x100000
WAITS = "marker=TOPSECRET share-at=pool say=ready await=pool,go holds=marker,TOPSECRET poweroff"
Sealer = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may need a program."""
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("ZSEAL_QEMU", raising=False)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("machine") / "m"
    Machine.create(folder, name="m")
    return Machine.load(folder)


@pytest.fixture
def seal(tmp_path: Path, machine: Machine) -> Sealer:
    def sealer(words: str, *, code: bytes | None = None) -> Path:
        path, source = tmp_path / "image", tmp_path / "kernel"
        source.write_bytes(code or kernel())
        build_image(path, kernel=source, cmdline=words.encode(), host_keys=[machine.keys.host.public_key()])
        return path

    return sealer


def test_its_image_is_expected_by_the_ultravisor(
    monkeypatch: pytest.MonkeyPatch, seal: Sealer, machine: Machine
) -> None:
    used: list[int] = []
    take = UnpackAhead.take

    def waited(self: UnpackAhead, header: bytes) -> Sequence[Unpacked]:
        self._thread.join(PATIENCE)
        found = take(self, header)
        used.append(len(found))
        return found

    monkeypatch.setattr(UnpackAhead, "take", waited)
    with Guest(seal("hello poweroff"), machine=machine, engine=EngineName.EMBEDDED, memory=MEMORY) as guest:
        result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.POWEROFF
    assert len(used) == 1
    assert used[0] >= 3  # kernel, command line, bootloader


def write(guest: Guest, address: int, data: bytes) -> None:
    """Write to a page that the guest shares, as a host may."""
    assert guest.vmm is not None
    uv = guest.vmm.ultravisor
    guest.in_loop(lambda: uv.host.write(address, data))


def test_a_protected_guest_runs_to_its_power_off(seal: Sealer, machine: Machine) -> None:
    with Guest(seal("facility=158 share=3 poweroff"), machine=machine, memory=MEMORY, engine="embedded") as guest:
        result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.POWEROFF
    report = guest.report
    assert (report["protected"], report["boots"], report["io"]) == (True, 1, None)
    assert isinstance(report["engine"], dict)
    assert report["engine"]["name"] == "embedded"
    assert isinstance(report["ultravisor"], dict)
    assert isinstance(report["ultravisor"]["pages"], dict)
    assert report["ultravisor"]["pages"]["shared"] == 3


def test_pages_leave_and_come_back(seal: Sealer, machine: Machine, tmp_path: Path) -> None:
    with Guest(seal(WAITS), machine=machine, memory=MEMORY, engine=EngineName.EMBEDDED, record=True) as guest:
        guest.wait_for_output("ready")
        assert guest.page_out(tmp_path / "pages") > 1000
        assert b"TOPSECRET" not in (tmp_path / "pages").read_bytes()
        assert guest.host.find(b"TOPSECRET") is None
        guest.resume()
        write(guest, 0x200000, b"go")
        assert guest.wait_for_output("holds address=0x100000 yes")
        assert guest.wait(PATIENCE)
        assert guest.record.samples


def test_a_changed_page_ends_the_guest(seal: Sealer, machine: Machine, tmp_path: Path) -> None:
    with Guest(seal(WAITS), machine=machine, memory=MEMORY, engine="embedded") as guest:
        guest.wait_for_output("ready")
        guest.page_out(tmp_path / "pages", 1, start=MARKER)
        data = bytearray((tmp_path / "pages").read_bytes())
        data[-PAGE_SIZE // 2] ^= 1
        (tmp_path / "pages").write_bytes(data)
        with pytest.raises(PageIntegrityError, match="0x100000"):
            guest.resume()
        result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.INTEGRITY


@pytest.mark.parametrize(("change", "outcome"), [(0, Outcome.POWEROFF), (1, Outcome.FAILED)])
def test_a_page_that_the_host_took_comes_back_verified_when_it_is_touched(
    seal: Sealer, machine: Machine, change: int, outcome: Outcome
) -> None:
    with Guest(seal(WAITS), machine=machine, memory=MEMORY, engine="embedded") as guest:
        guest.wait_for_output("ready")
        assert guest.vmm is not None
        uv = guest.vmm.ultravisor
        guest.in_loop(lambda: uv.host.export_run(MARKER, PAGE_SIZE))
        taken = bytearray(uv.firmware.storage.read(MARKER, PAGE_SIZE))
        assert b"TOPSECRET" not in taken
        taken[7] ^= change
        uv.firmware.storage.write(MARKER, taken)
        write(guest, 0x200000, b"go")
        result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is outcome
    assert ("the page was changed" in result.message) is bool(change)


def test_linux_is_told_what_it_needs(seal: Sealer, machine: Machine) -> None:
    code = bytearray(kernel())
    code[0x10428:0x10430] = len(code).to_bytes(8, "big")  # where Linux says its version is
    code += b"6.12.1-test (builder) #1\0"
    image = seal("", code=bytes(code))
    with Guest(image, machine=machine, memory=MEMORY, engine="embedded") as guest:
        result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.FAILED
    assert "Linux 6.12.1-test needs QEMU" in result.message
    assert '`engine="qemu"`' in result.message
    assert "\n" not in result.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"disks": [Disk("/disk")]}, "no disks"),
        ({"networks": [UserNetwork()]}, "no networks"),
        ({"random_sources": [RandomSource()]}, "no random sources"),
        ({"qemu_arguments": ["-name", "x"]}, "no QEMU arguments"),
        ({"qemu": "qemu-system-s390x"}, "no QEMU program to choose"),
        ({"machine_type": "s390-ccw-virtio-7.2"}, "no machine type to choose"),
        ({"cpus": 9}, "1 to 8 CPUs"),
    ],
)
def test_what_only_qemu_has_is_refused(seal: Sealer, machine: Machine, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Guest(seal("poweroff"), machine=machine, memory=MEMORY, engine="embedded", **options)  # type: ignore[arg-type]


def test_another_engine_does_not_exist(seal: Sealer, machine: Machine) -> None:
    with pytest.raises(UsageError, match="no engine 'kvm'; use qemu or embedded"):
        Guest(seal("poweroff"), machine=machine, memory=MEMORY, engine="kvm")


def test_the_engine_that_is_there_is_found(
    seal: Sealer, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert available_engine() is EngineName.EMBEDDED
    program = tmp_path / "qemu-system-s390x"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert available_engine() is EngineName.QEMU
    monkeypatch.setitem(sys.modules, "unicorn", None)
    with pytest.raises(MissingDependencyError, match=r"qemu-system-s390x.*'unicorn' is not installed.*pip install"):
        available_engine()
    with pytest.raises(MissingDependencyError, match="'unicorn' is not installed; pip install"):
        Guest(seal("poweroff"), machine=machine, memory=MEMORY, engine="embedded")


def guest_memories() -> int:
    links = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return sum(link.endswith("(deleted)") for link in links)  # files without a name


def test_a_guest_with_a_wrong_name_is_refused_before_it_has_memory(
    machine: Machine, seal: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*_: object, **__: object) -> NoReturn:
        raise AssertionError("an engine was created")

    monkeypatch.setattr("zseal.guest.boot.create_engine", create)
    with pytest.raises(InputError, match="a guest cannot be called 'no such name!'"):
        Guest(seal("poweroff"), machine=machine, memory=MEMORY, engine="embedded", name="no such name!")


@pytest.mark.parametrize("engine", ["embedded", "qemu"])
@pytest.mark.parametrize("step", ["protection.Vmm", "guest.GuestThread"])
def test_a_guest_that_is_refused_late_leaves_no_memory_behind(
    machine: Machine, seal: Sealer, monkeypatch: pytest.MonkeyPatch, step: str, engine: str
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(f"zseal.guest.{step}", fail)
    before = guest_memories()
    with pytest.raises(OSError, match="Too many open files"):
        Guest(seal("poweroff"), machine=machine, memory=MEMORY, engine=engine)
    assert guest_memories() == before


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_none_is_refused(machine: Machine, seal: Sealer, timeout: float) -> None:
    image, before = seal("poweroff"), guest_memories()
    with pytest.raises(UsageError, match="a number of seconds above 0, not"):
        Guest(image, machine=machine, memory=MEMORY, engine="embedded", timeout=timeout)
    with pytest.raises(UsageError, match="a number of seconds above 0, not"):
        Guest.plain(image, memory=MEMORY, engine="embedded", timeout=timeout)
    assert guest_memories() == before


def test_a_machine_may_be_its_directory(machine: Machine, seal: Sealer, tmp_path: Path) -> None:
    image = seal("poweroff")
    with Guest(image, machine=machine.directory, memory=MEMORY, engine="embedded") as guest:
        result = guest.wait(PATIENCE)
    assert result is not None
    assert result.outcome is Outcome.POWEROFF
    with pytest.raises(InputError, match=r"`Machine.create\(\)`"):
        Guest(image, machine=tmp_path, memory=MEMORY, engine="embedded")
    with pytest.raises(TypeError, match="NoneType"):
        Guest(image, machine=None, memory=MEMORY, engine="embedded")  # type: ignore[arg-type]


def test_a_guest_that_was_closed_has_no_memory_to_look_at(machine: Machine, seal: Sealer, tmp_path: Path) -> None:
    image = seal("poweroff")
    with Guest(image, machine=machine, memory=MEMORY, engine="embedded") as guest:
        guest.wait(PATIENCE)
        early = guest.host
        assert early.find(b"nowhere to be found") is None
    for host in (early, guest.host):
        with pytest.raises(EngineError, match="the guest was closed"):
            host.find(b"x")
        with pytest.raises(EngineError, match="the guest was closed"):
            host.read_memory(0, 1)
        with pytest.raises(EngineError, match="the guest was closed"):
            host.dump(tmp_path / "dump")
    assert not (tmp_path / "dump").exists()
    guest = Guest.plain(image, memory=MEMORY, engine="embedded")
    guest.close()
    with pytest.raises(EngineError, match="the guest was closed"):
        guest.host.find(b"x")


def test_what_has_ended_does_not_run_protected(machine: Machine, seal: Sealer) -> None:
    with Guest(seal(WAITS), machine=machine, memory=MEMORY, engine="embedded") as guest:
        guest.wait_for_output("ready")
        running = guest.protected
        write(guest, 0x200000, b"go")
        guest.wait(PATIENCE)
        assert (running, guest.protected) == (True, False)
        assert guest.report["protected"]
        assert guest.host.find(b"TOPSECRET") is None


def test_output_is_waited_for_as_text(machine: Machine, seal: Sealer) -> None:
    with (
        Guest(seal("poweroff"), machine=machine, memory=MEMORY, engine="embedded") as guest,
        pytest.raises(TypeError, match="wait_for_output takes a str, not bytes"),
    ):
        guest.wait_for_output(b"x")  # type: ignore[arg-type]

"""What users write about disks, networks and consoles, and what QEMU is told."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zseal.engine.devices import Disk, HostForward, RandomSource, UserNetwork
from zseal.engine.machine import MachineConfig
from zseal.engine.qemu.commandline import Descriptors, arguments
from zseal.engine.qemu.devices import device_arguments
from zseal.errors import InputError, UsageError, ZsealError
from zseal.guest import resources
from zseal.guest.console_server import parse_console
from zseal.guest.devices import parse_disk, parse_network, with_boot_disk

ZIPL = b"zIPL" + bytes(508)
INHERITED = Descriptors(memory=3, qmp=4, terminal=5, line_mode=None, gdb=6)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1024))
    return path


def devices(config: MachineConfig) -> list[dict[str, object]]:
    """The devices that QEMU is told of in JSON."""
    command = arguments(config, INHERITED)
    values = [value for option, value in itertools.pairwise(command) if option == "-device"]
    return [json.loads(value) for value in values if value.startswith("{")]


def test_every_virtio_device_has_iommu_platform_unless_told_otherwise() -> None:
    for iommu in (True, False):
        config = MachineConfig(
            kernel=7,
            memory=1 << 30,
            disks=[Disk("a", iommu=iommu), Disk("b", iommu=iommu)],
            networks=[UserNetwork(iommu=iommu), UserNetwork(iommu=iommu)],
            random_sources=[RandomSource(iommu=iommu)],
        )
        found = devices(config)
        assert [item["driver"] for item in found] == [
            "virtio-blk-ccw",
            "virtio-blk-ccw",
            "virtio-net-ccw",
            "virtio-net-ccw",
            "virtio-rng-ccw",
        ]
        assert all(item["iommu_platform"] is iommu for item in found)
        assert len({str(item["id"]) for item in found}) == len(found)


def test_machine_without_kernel_boots_from_its_disks() -> None:
    command = arguments(MachineConfig(kernel=None, memory=1 << 30, disks=[Disk("a", boot_index=0)]), INHERITED)
    assert "-kernel" not in command
    assert devices(MachineConfig(kernel=None, memory=1 << 30, disks=[Disk("a", boot_index=0)]))[0]["bootindex"] == 0


@pytest.mark.parametrize("name", ["s390-ccw-virtio,accel=kvm", "", "a b"])
def test_machine_type_is_a_name(name: str) -> None:
    with pytest.raises(UsageError, match="not a machine type"):
        MachineConfig(kernel=7, memory=1 << 30, machine_type=name)


def test_machine_type_reaches_qemu() -> None:
    command = arguments(MachineConfig(kernel=7, memory=1 << 30, machine_type="s390-ccw-virtio-7.0"), INHERITED)
    assert command[command.index("-machine") + 1] == "s390-ccw-virtio-7.0,memory-backend=ram,dump-guest-core=off"


def test_disk_options(disk: Path) -> None:
    assert parse_disk(str(disk)) == Disk(str(disk))
    full = parse_disk(f"{disk},format=qcow2,readonly,iommu=off,bootindex=3")
    assert full == Disk(str(disk), "qcow2", read_only=True, iommu=False, boot_index=3)
    assert parse_disk(f"{disk},readonly=off,iommu=on") == Disk(str(disk))


def test_commas_in_names_of_disks_are_doubled(tmp_path: Path) -> None:
    path = tmp_path / "a,b.img"
    path.write_bytes(b"")
    assert parse_disk(str(path).replace(",", ",,")).path == str(path)


@pytest.mark.parametrize("option", ["size=1", "format", "format=", "readonly=maybe", "bootindex=first", "iommu=2", ""])
def test_wrong_disk_options_are_named(disk: Path, option: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_disk(f"{disk},{option}")
    assert caught.value.where == str(disk)


def test_disk_has_to_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a file or a block device"):
        parse_disk(str(tmp_path))
    with pytest.raises(InputError, match="No such file"):
        parse_disk(str(tmp_path / "missing"))


def test_network_options() -> None:
    assert parse_network("user") == UserNetwork()
    network = parse_network("user,hostfwd=tcp::2222-:22,hostfwd=udp:0.0.0.0:53-10.0.2.15:5353,mac=52:54:00:AB:CD:EF")
    assert network.forwards == (
        HostForward(2222, 22),
        HostForward(53, 5353, protocol="udp", host="0.0.0.0", guest="10.0.2.15"),
    )
    assert network.mac == "52:54:00:ab:cd:ef"
    command = device_arguments(MachineConfig(kernel=None, memory=1 << 30, networks=(UserNetwork(), network)))
    assert command[command.index("-device") + 2 :][:2] == [
        "-netdev",
        "user,id=net1,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=udp:0.0.0.0:53-10.0.2.15:5353",
    ]


def test_forwards_without_an_address_are_for_this_computer_alone() -> None:
    assert parse_network("user,hostfwd=8080-80").forwards == (HostForward(8080, 80, host="127.0.0.1"),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tap",
        "bridge,br=br0",
        "user,hostfwd",
        "user,hostfwd=tcp::0-:22",
        "user,hostfwd=tcp::65536-:22",
        "user,hostfwd=sctp::1-:2",
        "user,hostfwd=tcp:nohost:1-:2",
        "user,hostfwd=tcp::22",
        "user,mac=1",
        "user,mac=53:54:00:00:00:01",
        "user,restrict=x",
        "user,smb=/",
    ],
)
def test_wrong_network_options_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_network(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_is_taken_or_refused_in_one_line(text: str) -> None:
    for parse in (parse_disk, parse_network, parse_console):
        try:
            parse(text)
        except ZsealError as error:
            assert error.message


def test_first_disk_boots_unless_the_indexes_say_otherwise(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a", "b")]
    for path in paths:
        Path(path).write_bytes(ZIPL)
    disks, first = with_boot_disk([Disk(path) for path in paths])
    assert first.path == paths[0]
    assert [item.boot_index for item in disks] == [0, None]
    disks, first = with_boot_disk([Disk(paths[0], boot_index=2), Disk(paths[1], boot_index=1)])
    assert first.path == paths[1]
    assert [item.boot_index for item in disks] == [2, 1]


@pytest.mark.parametrize("content", [ZIPL, bytes.fromhex("c9d7d3f1"), bytes(0x8001) + b"CD001"])
def test_disks_of_every_bootable_kind_are_taken(disk: Path, content: bytes) -> None:
    disk.write_bytes(content)
    with_boot_disk([Disk(str(disk))])


def test_disk_without_a_boot_record_is_refused(disk: Path) -> None:
    with pytest.raises(InputError, match="no boot record of zipl"):
        with_boot_disk([Disk(str(disk))])
    disk.write_bytes(b"QFI\xfb" + bytes(508))
    with pytest.raises(InputError, match="format=qcow2"):
        with_boot_disk([Disk(str(disk))])
    with_boot_disk([Disk(str(disk), "qcow2")])  # what lies in it only QEMU knows


def test_nothing_to_boot_is_a_matter_of_usage() -> None:
    with pytest.raises(UsageError, match="nothing to boot"):
        with_boot_disk([])


def test_guest_larger_than_free_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9999999 kB\nMemAvailable:    2097152 kB\n")
    monkeypatch.setattr(resources, "_MEMINFO", meminfo)
    monkeypatch.setattr(resources, "_OWN_CGROUP", tmp_path / "none")
    resources.check_memory(2 << 30)
    with pytest.raises(InputError, match="3072 MiB of memory are more than the 2048 MiB") as caught:
        resources.check_memory(3 << 30)
    assert "`memory`" in str(caught.value)


def test_limits_of_control_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, outer = tmp_path / "a" / "b", tmp_path / "a"
    own.mkdir(parents=True)
    (own / "memory.max").write_text("max\n")
    (own / "memory.current").write_text("5\n")
    (outer / "memory.max").write_text(f"{1 << 30}\n")
    (outer / "memory.current").write_text(f"{1 << 29}\n")
    (outer / "memory.stat").write_text(f"anon 1\nactive_file {1 << 20}\ninactive_file {1 << 21}\n")
    (tmp_path / "own").write_text("0::/a/b\n")
    monkeypatch.setattr(resources, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(resources, "_CGROUPS", tmp_path)
    monkeypatch.setattr(resources, "_OWN_CGROUP", tmp_path / "own")
    assert resources.available_memory() == (1 << 29) + (3 << 20)


def test_computer_that_tells_nothing_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_MEMINFO", "_OWN_CGROUP"):
        monkeypatch.setattr(resources, name, tmp_path / "none")
    resources.check_memory(1 << 50)


@pytest.mark.parametrize("text", ["", "tty", "socket:", "pty:1", "stdio"])
def test_other_consoles_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a console"):
        parse_console(text)

"""From a machine's description to QEMU's arguments."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from zseal.engine.devices import Disk
from zseal.engine.machine import MachineConfig, fixed_memory_size
from zseal.engine.qemu.commandline import Descriptors, arguments, cpu_model, without_secrets
from zseal.errors import UsageError
from zseal.linux import kernel_file

GIB = 1 << 30
INHERITED = Descriptors(memory=10, qmp=11, terminal=12, line_mode=None, gdb=13)


def after(option: str, given: list[str]) -> list[str]:
    return [given[at + 1] for at, item in enumerate(given) if item == option]


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (1, 1 << 20),
        (GIB, GIB),
        (GIB + 1, GIB + (2 << 20)),
        (1020 << 20, 1020 << 20),
        (1021 << 20, 1022 << 20),
        (64 * GIB, 64 * GIB),
        (64 * GIB + 1, 64 * GIB + (128 << 20)),
    ],
)
def test_memory_is_whole_storage_increments(wanted: int, got: int) -> None:
    assert fixed_memory_size(wanted) == got


def test_everything_is_reached_through_inherited_descriptors() -> None:
    given = arguments(MachineConfig(kernel=5, memory=GIB, cpus=3), INHERITED)
    assert after("-kernel", given) == ["/proc/self/fd/5"]
    assert json.loads(after("-object", given)[0])["mem-path"] == "/proc/self/fd/10"
    assert after("-chardev", given) == ["socket,id=qmp,fd=11", "socket,id=gdb,fd=13", "socket,id=terminal,fd=12"]
    assert after("-smp", given) == ["3"]
    assert after("-m", given) == ["1024M"]
    assert "-S" in given
    assert "-append" not in given


@pytest.mark.parametrize("allowed", [False, True])
def test_no_core_dump_has_the_guests_memory_unless_that_is_allowed(allowed: bool) -> None:
    given = arguments(MachineConfig(kernel=5, memory=GIB), INHERITED, core_dumps=allowed)
    assert f"dump-guest-core={'on' if allowed else 'off'}" in after("-machine", given)[0].split(",")
    assert json.loads(after("-object", given)[0])["dump"] is allowed


def test_qemu_gives_up_other_users_programs_and_priorities() -> None:
    config = MachineConfig(kernel=5, memory=GIB)
    (given,) = after("-sandbox", arguments(config, INHERITED, sandbox=True))
    denied = {"obsolete", "elevateprivileges", "spawn", "resourcecontrol"}
    assert set(given.split(",")) == {"on", *(f"{each}=deny" for each in denied)}
    assert "-sandbox" not in arguments(config, INHERITED)


def test_a_plugin_is_given_its_descriptors() -> None:
    watched = dataclasses.replace(INHERITED, plugin=Path("/a,b.so"), plugin_socket=14, monitor=15)
    for queues, more in ((None, ""), (16, ",queues=16,storage=10")):
        given = arguments(MachineConfig(kernel=5, memory=GIB), dataclasses.replace(watched, queues=queues))
        assert after("-plugin", given) == [f"file=/a,,b.so,socket=14,entry={kernel_file.ENTRY}{more}"]


def test_a_plugin_that_may_not_watch_the_lock_is_told_so() -> None:
    watched = dataclasses.replace(INHERITED, plugin=Path("/p.so"), plugin_socket=14, monitor=15, lock=False)
    given = arguments(MachineConfig(kernel=5, memory=GIB), watched)
    assert after("-plugin", given) == [f"file=/p.so,socket=14,entry={kernel_file.ENTRY},lock=off"]


def test_a_machine_without_traps_has_no_stub() -> None:
    without = Descriptors(memory=10, qmp=11, terminal=12, line_mode=14, gdb=None)
    given = arguments(MachineConfig(kernel=5, memory=GIB, ramdisk=6, cmdline="a b", extra=["-x"]), without)
    assert "-gdb" not in given
    assert "socket,id=line,fd=14" in given
    assert after("-initrd", given) == ["/proc/self/fd/6"]
    assert after("-append", given) == ["a b"]
    assert given[-1] == "-x"


def test_disks_translate_addresses_unless_told_otherwise() -> None:
    disks = [Disk("/a,b.qcow2", "qcow2"), Disk("/c", read_only=True, iommu=False)]
    given = arguments(MachineConfig(kernel=5, memory=GIB, disks=disks), INHERITED)
    nodes = [json.loads(text) for text in after("-blockdev", given)]
    devices = [json.loads(text) for text in after("-device", given) if text.startswith("{")]
    assert [node["file"]["filename"] for node in nodes] == ["/a,b.qcow2", "/c"]
    assert [node["driver"] for node in nodes] == ["qcow2", "raw"]
    assert [node["read-only"] for node in nodes] == [False, True]
    assert [device["iommu_platform"] for device in devices] == [True, False]
    assert [device["drive"] for device in devices] == [node["node-name"] for node in nodes]


@pytest.mark.parametrize("cpus", [0, -1, 249])
def test_a_machine_has_a_possible_number_of_cpus(cpus: int) -> None:
    with pytest.raises(UsageError):
        MachineConfig(kernel=5, memory=GIB, cpus=cpus)


def test_vector_instructions_are_off_where_qemu_computes_wrongly_with_them() -> None:
    assert cpu_model((7, 2)) == "max,vx=off,vxeh=off,vxeh2=off"
    assert cpu_model((10, 0)) == "max"
    assert cpu_model(None) == "max"
    assert after("-cpu", arguments(MachineConfig(kernel=5, memory=GIB), INHERITED, cpu="max,vx=off")) == ["max,vx=off"]


def test_audited_machines_have_no_pci() -> None:
    assert cpu_model((7, 2), audited=True) == "max,vx=off,vxeh=off,vxeh2=off,zpci=off"
    assert cpu_model((10, 0), audited=True) == "max,zpci=off"


def test_the_log_leaves_out_secrets_of_the_arguments() -> None:
    given = [
        *("-append", "root=/dev/vda1 token=hunter2"),
        *("-object", "secret,id=s0,data=hunter2,format=raw"),
        *("-object", '{"qom-type": "secret", "id": "s1", "data": "hunter2"}'),
        *("-chardev", "socket,id=c0,password=hunter2,host=a"),
        *("-drive", "file=disk.img,key-secret=s0"),
    ]
    line = without_secrets(given)
    assert "hunter2" not in line
    assert "token" not in line
    for kept in ("-append", "secret,id=s0,data=…,format=raw", '"id": "s1"', "host=a", "file=disk.img,key-secret="):
        assert kept in line
    assert without_secrets(["-m", "1024M", "-name", "two words"]) == "-m 1024M -name 'two words'"


def test_a_guest_is_told_its_name_and_an_identifier_of_its_own() -> None:
    one, other = (MachineConfig(kernel=5, memory=GIB, name="web-1") for _ in range(2))
    assert after("-name", arguments(one, INHERITED)) == ["web-1,debug-threads=on"]
    assert after("-uuid", arguments(one, INHERITED)) == [str(one.uuid)]
    assert one.uuid != other.uuid


def test_monitors_are_objects_for_a_qemu_that_deprecates_the_option() -> None:
    given = dataclasses.replace(INHERITED, plugin=Path("/plugin.so"), plugin_socket=8, monitor=9)
    config = MachineConfig(kernel=5, memory=GIB)
    assert len(after("-mon", arguments(config, given, version=(10, 0)))) == 2
    newer = arguments(config, given, version=(11, 1))
    assert "-mon" not in newer
    objects = [text for text in after("-object", newer) if text.startswith("monitor-qmp,")]
    assert objects == ["monitor-qmp,id=qmp-monitor,chardev=qmp", "monitor-qmp,id=monitor-monitor,chardev=monitor"]
    assert after("-chardev", newer)[0] == after("-chardev", arguments(config, given))[0]

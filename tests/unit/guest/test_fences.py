"""Extra QEMU arguments that a protected guest cannot have are refused, with the reason QEMU has for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from zseal.errors import UsageError
from zseal.guest import fences
from zseal.guest.fences import check_arguments

REFUSED = [
    (["-device", "virtio-balloon-ccw"], "memory balloon"),
    (["-device", "virtio-balloon,id=b"], "memory balloon"),
    (["--device", '{"driver": "virtio-balloon-ccw", "id": "b"}'], "memory balloon"),
    (["-device", "driver=virtio-balloon-ccw"], "memory balloon"),
    (["-balloon", "virtio"], "memory balloon"),
    (["-device", "virtio-mem-ccw,memdev=m"], "cannot disable RAM discard"),
    (["-device", "virtio-pmem-pci,memdev=m"], "cannot disable RAM discard"),
    (["-device", "pc-dimm,memdev=m"], "cannot disable RAM discard"),
    (["-m", "2G,maxmem=8G"], "cannot disable RAM discard"),
    (["-m", "2G,slots=2"], "cannot disable RAM discard"),
    (["-object", "memory-backend-memfd,id=m,size=1G,hugetlb=on"], "huge pages"),
    (["-object", "memory-backend-memfd,id=m,size=1G,hugetlbsize=1M"], "huge pages"),
    (["-object", '{"qom-type": "memory-backend-memfd", "id": "m", "hugetlb": true}'], "huge pages"),
    (["-object", "memory-backend-file,id=m,mem-path=/dev/hugepages/x,size=1G"], "huge pages"),
    (["-mem-path", "/dev/hugepages"], "huge pages"),
    (["-incoming", "defer"], "not migratable"),
    (["-loadvm", "saved"], "not migratable"),
    (["-only-migratable"], "not migratable"),
    (["-monitor", "stdio"], "another QEMU monitor than zseal's"),
    (["-mon", "chardev=m"], "another QEMU monitor than zseal's"),
    (["-qmp", "unix:socket,server"], "another QEMU monitor than zseal's"),
    (["-qmp-pretty", "stdio"], "another QEMU monitor than zseal's"),
    (["-serial", "mon:stdio"], "another QEMU monitor than zseal's"),
    (["-device", "vfio-ccw,sysfsdev=/sys/x"], "private memory"),
    (["-device", "vfio-pci,host=0000:00:00.0"], "private memory"),
    (["-device", "vfio-ap,sysfsdev=/sys/x"], "z16"),
]

OWN = [
    (["-m", "2G"], "`memory`"),
    (["-smp", "4"], "`cpus`"),
    (["-initrd", "file"], "part of the image"),
    (["-append", "quiet"], "part of the image"),
    (["-kernel", "file"], "the image is the kernel"),
    (["-accel", "kvm"], "TCG"),
    (["-enable-kvm"], "TCG"),
    (["-s"], "debug stub"),
    (["-gdb", "tcp::1234"], "debug stub"),
    (["-M", "s390-ccw-virtio-6.0"], "`machine_type`"),
    (["-machine", "memory-backend=m"], "remove that property"),
    (["-readconfig", "file"], "write the options out"),
    (["-mem-path", "/tmp"], "remove it"),
]

ALLOWED = [
    [],
    ["-device", "virtio-serial-ccw,iommu_platform=on"],
    ["-object", "memory-backend-ram,id=m,size=1M,hugetlb=off"],
    ["-object", "rng-random,id=r,filename=/dev/urandom"],
    ["-machine", "loadparm=2"],
    ["-name", "virtio-balloon"],
    ["-device", "virtio-blk-ccw,drive=d,serial=a,,b"],
    ["-trace", "{not json"],
]


@pytest.mark.parametrize(("arguments", "reason"), REFUSED)
def test_fenced_arguments_are_refused_with_the_reason(arguments: list[str], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_arguments(["-name", "x", *arguments], protected=True)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(" ".join(arguments))
    assert caught.value.hint


@pytest.mark.parametrize(("arguments", "advice"), OWN)
@pytest.mark.parametrize("protected", [True, False])
def test_what_zseal_sets_up_itself_is_refused(arguments: list[str], advice: str, protected: bool) -> None:
    with pytest.raises(UsageError, match="zseal sets this itself") as caught:
        check_arguments(arguments, protected=protected)
    assert advice in str(caught.value)


@pytest.mark.parametrize("arguments", ALLOWED)
def test_other_arguments_pass(arguments: list[str]) -> None:
    check_arguments(arguments, protected=True)


def test_plain_guests_may_have_a_balloon() -> None:
    check_arguments(["-device", "virtio-balloon-ccw"], protected=False)


def test_huge_pages_are_recognised_wherever_they_are_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("none /srv/huge hugetlbfs rw 0 0\nnone /srv tmpfs rw 0 0\n")
    monkeypatch.setattr(fences, "_MOUNTS", mounts)
    with pytest.raises(UsageError, match="huge pages"):
        check_arguments(["-object", "memory-backend-file,id=m,mem-path=/srv/huge/a"], protected=True)
    check_arguments(["-object", "memory-backend-file,id=m,mem-path=/srv/hugeness"], protected=True)


def test_every_fence_is_tried() -> None:
    tried = {
        fence.reason
        for arguments, _reason in REFUSED
        for name, _written, properties in fences.options(arguments)
        for fence in fences.FENCES
        if fence.option == name and fence.applies(properties)
    }
    assert tried == {fence.reason for fence in fences.FENCES}


def test_devices_on_pci_are_refused_where_they_can_not_be_audited() -> None:
    arguments = ["-device", "virtio-blk-pci,drive=d,iommu_platform=on"]
    with pytest.raises(UsageError, match="cannot observe how PCI devices are notified"):
        check_arguments(arguments, protected=True, audited=True)
    check_arguments(arguments, protected=True, audited=False)


@pytest.mark.parametrize("option", ["-action", "-watchdog-action"])
def test_what_a_guests_end_does_is_zseals(option: str) -> None:
    with pytest.raises(UsageError, match="zseal sets this itself"):
        check_arguments([option, "watchdog=reset"], protected=False)


@pytest.mark.parametrize(
    "value", ["monitor-qmp,id=m0,chardev=c0", "monitor-hmp,chardev=c0", '{"qom-type": "monitor-qmp", "id": "m0"}']
)
def test_monitors_as_objects_are_monitors_too(value: str) -> None:
    with pytest.raises(UsageError, match="monitor"):
        check_arguments(["-object", value], protected=True)
    check_arguments(["-object", value], protected=False)

"""Exports say what the domain says, in words that the other program's published interface has."""

from __future__ import annotations

import json
import re
import shlex
import struct
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.domain.samples import GOOD, Sample, read
from tests.waiting import PATIENCE
from zseal.domain.document import Document
from zseal.domain.export import EXPORTERS, Exported, export_document
from zseal.domain.export import kata as kata_export
from zseal.domain.export.shape import misfits
from zseal.errors import InputError
from zseal.yamltext import to_yaml


def _export(name: str, to: str, **replacements: str) -> Exported:
    raw = read(name)
    for old, new in replacements.items():
        raw = raw.replace(old.encode(), new.encode())
    return export_document(Document(name, raw), to)


def _options(text: str) -> list[list[str]]:
    words = shlex.split(text.replace("\\\n", " "))
    starts = [index for index, word in enumerate(words) if word.startswith("-") and not word.startswith("-1")]
    return [words[a:b] for a, b in zip(starts, [*starts[1:], len(words)], strict=True)]


@pytest.mark.parametrize("to", ["qemu", "virt-install", "kubevirt"])
@pytest.mark.parametrize("sample", GOOD, ids=lambda sample: sample.name)
def test_every_good_sample_can_be_exported(sample: Sample, to: str) -> None:
    result = export_document(Document(sample.name, sample.raw), to)
    assert result.text.endswith("\n")
    unnamed = {"hostdev", "filesystem", "input", "video"} & {
        e.tag for e in Document("x", sample.raw).root.walk() if e.parent is not None and e.parent.tag == "devices"
    }
    for device in unnamed:
        assert any(device in note for note in result.notes), "nothing is dropped silently"


def test_launch_security_for_qemu() -> None:
    options = _options(_export("ok-ls-minimal.xml", "qemu").text)
    assert ["-object", "s390-pv-guest,id=pv0"] in options
    assert ["-machine", "s390-ccw-virtio,accel=kvm,confidential-guest-support=pv0"] in options
    assert ["-cpu", "host"] in options
    assert not any("iommu_platform" in word for option in options for word in option)
    assert ["-device", "virtio-blk-ccw,drive=disk0,bootindex=1"] in options
    blockdev = next(option[1] for option in options if option[0] == "-blockdev")
    assert json.loads(blockdev)["file"]["filename"] == "/var/lib/libvirt/images/se-guest.qcow2"


def test_the_iommu_style_for_qemu_covers_every_virtio_device() -> None:
    text = _export("ok-iommu-many-devices.xml", "qemu").text
    devices = [option[1] for option in _options(text) if option[0] == "-device" and option[1].startswith("v")]
    assert len(devices) == 5
    assert all(",iommu_platform=on" in device for device in devices)
    assert "s390-pv-guest" not in text


def _qcow2(path: Path) -> None:
    """Write an empty disk of 1 MiB: header, refcount table, refcount block and L1 table, a 64 KiB cluster each."""
    cluster = 1 << 16
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0, 1, 3 * cluster, cluster, 1, 0, 0)
    parts = [header, struct.pack(">Q", 2 * cluster), struct.pack(">4H", 1, 1, 1, 1), b""]
    path.write_bytes(b"".join(part.ljust(cluster, b"\0") for part in parts))


@pytest.mark.qemu
def test_qemu_itself_accepts_the_command_line(tmp_path: Path) -> None:
    """All but the four words that need KVM, the bridge or the terminal is given to a real QEMU as it is."""
    disk = tmp_path / "disk,with comma.qcow2"
    _qcow2(disk)
    raw = read("ok-iommu-scsi.xml").replace(b"/var/lib/libvirt/images/se-guest.qcow2", str(disk).encode())
    raw = raw.replace(b" cache='none' io='native'", b"").replace(b"'GiB'>4", b"'MiB'>256")
    raw = raw.replace(b"<interface type='network'>", b"<interface type='user'>").replace(b"network='default'", b"")
    raw = raw.replace(b"<source />", b"").replace(b"<name>", b"<title>x</title><name>a,b ")
    text = export_document(Document("x", raw), "qemu").text
    for old, new in (
        ("accel=kvm", "accel=tcg"),
        ("-cpu host", "-cpu max"),
        ("stdio,id=console0,signal=off", "null,id=console0"),
    ):
        assert old in text
        text = text.replace(old, new)
    words = shlex.split(text.replace("\\\n", " "))
    quit_at_once = ["-S", "-qmp", "stdio"]
    commands = '{"execute":"qmp_capabilities"}{"execute":"quit"}'
    done = subprocess.run(
        [*words, *quit_at_once], input=commands, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr


def test_virt_install_is_told_to_add_nothing() -> None:
    options = _options(_export("ok-ls-minimal.xml", "virt-install").text)
    for wanted in (
        ["--launchSecurity", "type=s390-pv"],
        ["--memballoon", "none"],
        ["--channel", "none"],
        ["--rng", "none"],
        ["--graphics", "none"],
        ["--cpu", "host-model"],
        ["--network", "network=default,model=virtio"],
    ):
        assert wanted in options
    covered = _export("ok-iommu-scsi.xml", "virt-install").text
    assert "--controller type=scsi,index=0,model=virtio-scsi,driver.iommu=on" in covered
    assert "--launchSecurity" not in covered


def test_kubevirt_says_launch_security_in_either_style() -> None:
    for name in ("ok-ls-minimal.xml", "ok-iommu-minimal.xml"):
        text = _export(name, "kubevirt").text
        assert "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\n" in text
        assert "        launchSecurity: {}\n" in text
        assert "      architecture: s390x\n" in text
        assert "          autoattachMemBalloon: false\n" in text
        assert '          guest: "4Gi"\n' in text


def test_a_domain_without_a_network_gets_none_elsewhere_either() -> None:
    raw = re.sub(rb"<interface.*</interface>", b"", read("ok-ls-minimal.xml"), flags=re.DOTALL)
    document = Document("x", raw)
    assert "          autoattachPodInterface: false\n" in export_document(document, "kubevirt").text
    assert ["--network", "none"] in _options(export_document(document, "virt-install").text)
    assert "-netdev" not in export_document(document, "qemu").text


def test_kata_gets_settings_it_knows() -> None:
    result = _export("ok-ls-direct-kernel.xml", "kata")
    settings = tomllib.loads(result.text)
    flat = {"hypervisor.qemu": settings["hypervisor"]["qemu"], "agent.kata": settings["agent"]["kata"]}
    assert misfits(flat, kata_export.SCHEMA) == []
    assert settings["hypervisor"]["qemu"]["confidential_guest"] is True
    assert settings["hypervisor"]["qemu"]["kernel"] == "/var/lib/libvirt/images/se.img"
    with pytest.raises(InputError, match="boots the image directly"):
        _export("ok-ls-minimal.xml", "kata")


@pytest.mark.parametrize("to", list(EXPORTERS))
def test_a_domain_with_errors_is_refused_with_the_rule(to: str) -> None:
    with pytest.raises(InputError, match=r"bad-PV201-disk.xml:12:7: PV201: disk vda"):
        _export("bad-PV201-disk.xml", to)


def test_names_are_made_to_fit() -> None:
    raw = read("ok-ls-minimal.xml").replace(b"<name>ok-ls-minimal<", "<name>Größe 1, it's a,b<".encode())
    document = Document("x", raw)
    assert "guest=Größe 1, it's a,b".replace(",", ",,") in " ".join(
        shlex.split(export_document(document, "qemu").text.replace("\\\n", " "))
    )
    assert "  name: gr-e-1-it-s-a-b\n" in export_document(document, "kubevirt").text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=8,
    )
)
def test_yaml_lines_are_well_formed(value: object) -> None:
    text = to_yaml(value)
    assert text.endswith("\n")
    assert "\t" not in text
    for line in text.splitlines():
        assert line.strip()


def test_yaml_of_nested_values() -> None:
    value = {"a": [{"b": 1, "c": {}}, "yes"], "d": {"e": None, "f": "x y"}, "g": []}
    assert to_yaml(value) == 'a:\n  - b: 1\n    c: {}\n  - "yes"\nd:\n  e: null\n  f: "x y"\ng: []\n'


def test_shapes_find_what_does_not_fit() -> None:
    shape = {"a": int, "b": [{"c": (1, 2)}], "d": str}
    assert misfits({"a": 1, "b": [{"c": 2}], "d": "x"}, shape) == []
    assert misfits({"a": True, "b": [{"c": 3}], "e": 1}, shape) == [
        ".: unknown field e",
        ".a: True is not a int",
        ".b[0].c: 3 is not one of (1, 2)",
    ]

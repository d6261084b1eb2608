"""libvirt accepts what fix makes of 200 generated domains, and gives QEMU iommu_platform for every virtio device."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import signal
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.paths import REPOSITORY, VECTORS
from zseal.domain.document import Document
from zseal.domain.fix import fix_bytes
from zseal.domain.launch.translate import translate
from zseal.domain.model import Domain
from zseal.engine.qemu.commandline import cpu_model
from zseal.engine.qemu.process import find_program, program_version
from zseal.libvirt.connection import Connection

COUNT = 200
BATCHES = 10


def _generator() -> ModuleType:
    """The generator of the unit tests."""
    path = REPOSITORY / "tests" / "unit" / "domain" / "generate.py"
    spec = importlib.util.spec_from_file_location("zseal_test_generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _given(command_line: list[str], wanted: str) -> list[str]:
    """What QEMU was given behind each option ``wanted``."""
    return [after for option, after in itertools.pairwise(command_line) if option == wanted]


def _devices(command_line: list[str]) -> list[str]:
    """The virtio devices on QEMU's command line, each as QEMU got it."""
    given = _given(command_line, "-device")
    return [device for device in given if re.search(r"virtio-[a-z0-9-]+-ccw|vhost-vsock-ccw", device)]


def started(connection: Connection, document: Document) -> list[str]:
    """Start the domain paused and return the command line of its QEMU, which is killed then."""
    paused = connection.libvirt.VIR_DOMAIN_START_PAUSED
    domain = connection.handle.createXML(document.data.decode(), paused)  # type: ignore[attr-defined]
    assert connection.root is not None
    pid = int((connection.root / "run" / "qemu" / f"{domain.name()}.pid").read_text())
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    finally:
        os.kill(pid, signal.SIGKILL)  # libvirt's own way to end it takes two seconds


@pytest.mark.qemu
@pytest.mark.parametrize("batch", range(BATCHES))
def test_libvirt_starts_generated_domains_with_every_virtio_device_covered(
    batch: int, connection: Connection, disk: Path, tmp_path: Path
) -> None:
    generate = _generator().generate
    image = tmp_path / "image"
    image.write_bytes(bytes(0x20000))
    for seed in range(batch, COUNT, BATCHES):
        fixed = fix_bytes("generated", generate(seed, str(disk)).encode()).after
        # the memory is never touched, but this computer may have less; locking it needs rights
        small = re.sub(rb"unit='MiB'>\d+<", b"unit='MiB'>128<", fixed).replace(b"<locked/>", b"")
        document = translate(Document("generated", small), image=image, user_network=True).document
        command_line = started(connection, document)
        assert _given(command_line, "-cpu") == [cpu_model(program_version(find_program()))]
        devices = _devices(command_line)
        model = Domain(document)
        assert len(devices) == len(model.virtio), f"seed {seed}: {devices}"
        for device in devices:
            assert '"iommu_platform":true' in device, f"seed {seed}: {device}"


@pytest.mark.qemu
def test_an_uncovered_device_would_be_seen(connection: Connection, disk: Path, tmp_path: Path) -> None:
    """The check above can fail: a domain in the iommu style with one attribute missing shows it."""
    image = tmp_path / "image"
    image.write_bytes(bytes(0x20000))
    raw = (VECTORS / "domains" / "bad-PV202-interface.xml").read_bytes()
    raw = raw.replace(b"/var/lib/libvirt/images/se-guest.qcow2", str(disk).encode()).replace(b"qcow2", b"raw")
    raw = raw.replace(b" cache='none' io='native'", b"").replace(b"'GiB'>4", b"'MiB'>128")
    document = translate(Document("x", raw), image=image, user_network=True).document
    devices = _devices(started(connection, document))
    assert ['"iommu_platform":true' in device for device in devices] == [True, False]

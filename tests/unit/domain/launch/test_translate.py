"""What is added to a domain for a daemon, and what is said when libvirt does not start it."""

from __future__ import annotations

import pytest

from tests.unit.domain.samples import read
from zseal.domain.document import Document
from zseal.domain.launch.translate import run_as
from zseal.errors import UsageError
from zseal.libvirt.connection import open_connection, start_error


def _labels(user: int, models: list[str]) -> list[tuple[str, str, str]]:
    root = run_as(Document("x", read("ok-ls-minimal.xml")), user, 100, models).root
    return [(label.get("model"), label.get("type"), label.get("relabel")) for label in root.all("seclabel")]


def test_qemu_runs_as_the_user_and_unconfined() -> None:
    models = ["none", "apparmor", "dac"]
    assert _labels(0, models) == [("apparmor", "none", ""), ("dac", "static", "no")]
    assert _labels(1000, models) == [("apparmor", "none", ""), ("dac", "static", "yes")]


def test_a_session_without_security_models_gets_no_labels() -> None:
    document = Document("x", read("ok-ls-minimal.xml"))
    assert run_as(document, 1000, 1000, ["none"]).data == document.data
    assert _labels(1000, ["selinux"]) == [("selinux", "none", "")]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (
            "internal error: qemu unexpectedly closed the monitor: 2026-01-01T00:00:00Z qemu-system-s390x: -device "
            '{"driver":"virtio-blk-ccw","id":"virtio-disk0"}: Failed to get "write" lock\nIs another process using it?',
            'd.xml: QEMU ended immediately: Failed to get "write" lock Is another process using it?',
        ),
        (
            "internal error: process exited: 2026-01-01T00:00:00Z qemu-system-s390x: Unable to read /x/master-key.aes",
            "d.xml: QEMU ended immediately: Unable to read /x/master-key.aes; QEMU runs as your user, who must be in "
            "the group of the daemon's user (Debian: libvirt-qemu); or use qemu:///session or qemu:///embed",
        ),
        (
            "Requested operation is not valid: network 'default' is not active",
            "d.xml: libvirt does not start the domain: Requested operation is not valid: network 'default' is not "
            "active; virsh net-start NAME starts a network",
        ),
    ],
)
def test_what_libvirt_or_qemu_say_becomes_one_line(reason: str, told: str) -> None:
    assert str(start_error(reason, "d.xml")) == told


@pytest.mark.parametrize("uri", ["qemu:///nowhere", "test:///default", "qemu+ssh://host/system", "qemu://host/system"])
def test_only_a_libvirt_on_this_computer_can_run_domains(uri: str) -> None:
    with pytest.raises(UsageError, match="qemu:///embed, qemu:///session, qemu:///system"), open_connection(uri):
        pass

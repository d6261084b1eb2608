"""Linux is reset in each way that it has, and comes up protected again from its image; its watchdog ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.devices.test_disks_and_networks import MIB, power_off, ready, run
from tests.waiting import PATIENCE, wait_until
from zseal.guest.events import ConsoleOutput, Protected
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine

if TYPE_CHECKING:
    from .conftest import Seal
else:
    Seal = object

pytestmark = [pytest.mark.qemu, pytest.mark.kernel]


def console(guest: Guest) -> str:
    return b"".join(event.data for event in guest.events(0.0) if isinstance(event, ConsoleOutput)).decode()


def wait_for_boots(guest: Guest, boots: int) -> None:
    wait_until(lambda: guest.result is not None or console(guest).count("@ready") >= boots, pause=0.1)
    assert guest.result is None, guest.result


def test_linux_is_protected_again_after_sysrq_a_panic_and_a_reboot(seal: Seal, machine: Machine) -> None:
    with Guest(seal(), machine=machine, memory=512 * MIB, timeout=PATIENCE) as guest:
        ready(guest)
        crash = "echo reipl > /sys/firmware/shutdown_actions/on_panic; echo c > /proc/sysrq-trigger"
        for boots, command in enumerate(("echo b > /proc/sysrq-trigger", crash, "reboot -f"), 2):
            guest.write_console(f"{command}\n".encode())
            wait_for_boots(guest, boots)
            assert guest.protected
            assert "protected=1" in run(guest, "echo protected=$(cat /sys/firmware/uv/prot_virt_guest)")
        power_off(guest)
        assert guest.report["boots"] == 4
        assert sum(isinstance(event, Protected) for event in guest.events()) == 4


def test_a_watchdog_that_nobody_feeds_ends_the_guest(seal: Seal, machine: Machine) -> None:
    watchdog = ["-device", "diag288"]
    with Guest(seal(), machine=machine, memory=512 * MIB, qemu_arguments=watchdog, timeout=PATIENCE) as guest:
        ready(guest)
        guest.write_console(b"watchdog -T 15 -t 200 /dev/watchdog\n")
        result = guest.wait(PATIENCE)
        assert result is not None
        assert result.outcome is Outcome.WATCHDOG, result.message

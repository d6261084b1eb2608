"""The environment variable ZSEAL_PLUGIN: a guest boots under each value, and the report says what saw its calls."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zseal.engine.qemu.plugin import Ability, PluginThread
from zseal.guest.events import ConsoleOutput
from zseal.guest.guest import Guest
from zseal.guest.outcome import Outcome
from zseal.hostkeys.machine import Machine

pytestmark = pytest.mark.qemu

Start = Callable[..., Guest]


@pytest.mark.parametrize(
    ("value", "seen_by"),
    [(None, "lock"), ("", "lock"), ("translations", "translations"), ("off", "breakpoints")],
)
def test_calls_are_completed_whatever_sees_them(
    start: Start, monkeypatch: pytest.MonkeyPatch, value: str | None, seen_by: str
) -> None:
    if value is None:
        monkeypatch.delenv("ZSEAL_PLUGIN", raising=False)
    else:
        monkeypatch.setenv("ZSEAL_PLUGIN", value)
    with start("hello uvc=4242,8 share=3") as guest:
        result = guest.wait(60)
        console = b"".join(event.data for event in guest.events() if isinstance(event, ConsoleOutput))
    assert result is not None
    assert result.outcome is Outcome.POWEROFF, result.message
    assert b"uvc 4242 cc=1 rc=0002 rrc=0000" in console
    assert isinstance(guest.report["engine"], dict)
    assert guest.report["engine"]["calls_by"] == seen_by


def test_with_translations_the_plugin_leaves_the_lock_of_qemu_as_it_is(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSEAL_PLUGIN", "translations")
    reported: list[Ability] = []
    ready = PluginThread.ready

    def note(thread: PluginThread) -> Ability:
        reported.append(ready(thread))
        return reported[-1]

    monkeypatch.setattr(PluginThread, "ready", note)
    with start("hello") as guest:
        guest.wait(60)
    (abilities,) = reported
    assert Ability.CALIBRATABLE not in abilities


def test_a_value_that_does_not_exist_is_a_usage_error(seal: Callable[..., Path], machine: Machine) -> None:
    command = [sys.executable, "-m", "zseal", "run", str(seal("hello")), "--machine", str(machine.directory)]
    ended = subprocess.run(
        command,
        env={**os.environ, "ZSEAL_PLUGIN": "of\nf"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "the environment variable ZSEAL_PLUGIN has the unknown value 'of\\nf'" in line
    assert line.endswith("; set it to off or translations, or unset it")

"""SIGTERM in the parts of ``zseal run`` in which no guest runs yet, or no longer."""

from __future__ import annotations

import os
import signal
import time
from typing import Self, cast

import pytest

from zseal.cli.run import Outputs, follow
from zseal.host.guest import Guest


class Starting:
    """A guest whose start takes long."""

    closed = False

    def __enter__(self) -> Self:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            self.closed = True
        return self

    def __exit__(self, *_: object) -> None:
        raise AssertionError("it was never started")


def test_sigterm_while_the_guest_is_being_started_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    starting = Starting()
    outputs = Outputs(report=None, host_dump=None, html=None, overwrite=False)
    assert follow(cast("Guest", starting), outputs, watch=False) == 143
    assert starting.closed
    assert capsys.readouterr().err == "error: terminated\n"
    assert signal.getsignal(signal.SIGTERM) is before

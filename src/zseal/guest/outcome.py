"""How a run ends, and the exit codes of the commands that run guests: this is their one list.

It is light on purpose, because the help of the command line shows the list.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zseal.arch.psw import Psw
    from zseal.hypervisor.vmm import Refusal

USAGE_EXIT_CODE = 2
"""The exit code of a wrong command line: no guest was run."""
SIGNAL_EXIT_CODES: Mapping[int, str] = {129: "SIGHUP", 131: "SIGQUIT", 143: "SIGTERM"}
"""Exit codes of a command that a signal ended, its guest before it. (SIGINT: ``Outcome.STOPPED``.)"""


class Outcome(enum.Enum):
    """How a run ended; ``exit_code`` is that of ``zseal run``, ``summary`` what it means in two or three words."""

    exit_code: int
    summary: str

    def __new__(cls, value: str, exit_code: int, summary: str) -> Outcome:
        """Attach the exit code and the summary to the name."""
        member = object.__new__(cls)
        member._value_ = value
        member.exit_code = exit_code
        member.summary = summary
        return member

    POWEROFF = "poweroff", 0, "power-off"
    FAILED = "failed", 1, "error"
    """zseal itself failed while the guest ran."""
    PANIC = "panic", 3, "guest panic"
    REFUSED = "refused", 4, "image refused by the ultravisor"
    """The ultravisor refused the image; its bootloader reported that and stopped."""
    TIMEOUT = "timeout", 5, "timeout"
    LOST = "lost", 6, "QEMU lost"
    """QEMU ended, or another process killed it."""
    WATCHDOG = "watchdog", 7, "watchdog"
    INTEGRITY = "integrity", 8, "page integrity"
    """A page that had left the guest came back changed; on hardware its VMM gets SIGSEGV."""
    IO_VIOLATION = "io-violation", 9, "I/O violation"
    """A device request named a page that the guest does not share; nothing was given to the device."""
    RESET = "reset", 10, "reset that ends it"
    """The guest rebooted, and its machine ends then: it did not power off."""
    STOPPED = "stopped", 130, "interrupted or stopped"
    """Ended by its user."""


@dataclasses.dataclass(frozen=True)
class Result:
    """The end of a run in one line (``message``); a panic with the ``cpu`` and ``psw`` at its end.

    ``code`` is the exit code of ``zseal run`` if it differs from that of the outcome.
    """

    outcome: Outcome
    message: str
    cpu: int | None = None
    psw: Psw | None = None
    refusal: Refusal | None = None
    code: int | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of ``zseal run``."""
        return self.outcome.exit_code if self.code is None else self.code

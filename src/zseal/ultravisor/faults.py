"""Answers on demand: busy, partial completion or a refusal, to test how callers handle them."""

from __future__ import annotations

import dataclasses

from zseal.formats.uv_codes import Command, ResponseCode

BUSY = 2
PARTIAL = 3


@dataclasses.dataclass
class Fault:
    """The answer to ``command`` instead of its execution: condition code 2 or 3, or a refusal.

    It acts ``times`` times, after letting ``skip`` such calls through. With ``half_done`` (CREATE_SEC_CONF only) the
    call fails late: there is a configuration, broken, which the caller has to destroy.
    """

    command: Command
    outcome: int | ResponseCode
    times: int = 1
    skip: int = 0
    half_done: bool = False


class FaultPlan:
    """The faults still to come."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Plan ``fault``; raises ValueError for one that no ultravisor can have."""
        if isinstance(fault.outcome, int) and fault.outcome not in (BUSY, PARTIAL):
            raise ValueError("only condition codes 2 (busy) and 3 (partial completion) can be injected")
        if fault.half_done and (fault.command is not Command.CREATE_SEC_CONF or isinstance(fault.outcome, int)):
            raise ValueError("only CREATE_SEC_CONF can fail half-way, and that with a response code")
        self._faults.append(fault)

    def planned(self, command: Command) -> bool:
        """Whether any fault for ``command`` is still to come."""
        return any(fault.command is command for fault in self._faults)

    def take(self, command: Command, *, half_done: bool = False) -> int | ResponseCode | None:
        """Return the answer for the next call of ``command``, if one is planned."""
        for fault in self._faults:
            if (fault.command, fault.half_done) != (command, half_done):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self._faults.remove(fault)
            return fault.outcome
        return None

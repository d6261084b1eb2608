"""Diagnoses of a whole run once it is over: known failures that no single line of a console shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from zseal.engine.interface import Stop
from zseal.guest.diagnosis import Diagnosis, explain_end, kernel_unaware, never_protected, unused_device
from zseal.guest.outcome import Outcome

_CAME_FAR = (Outcome.POWEROFF, Outcome.PANIC, Outcome.IO_VIOLATION)
"""A guest that ended differently may not have come far."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts about a run with protection, at its end."""

    outcome: Outcome
    stop: Stop
    ever_protected: bool
    linux: bool
    """Whether the kernel that began last is Linux by its own account."""
    kernel_began: bool
    """Whether a kernel left its decompressor, which uses no device and need not share anything."""
    calls: Mapping[str, int]
    """The guest's ultravisor calls and those of its hypervisor, by name."""
    known: Collection[str] = ()
    """The ids of the diagnoses that were found while it ran."""


def diagnose_run(facts: RunFacts) -> Sequence[Diagnosis]:
    """Return the cause of the run's end, if it is a known failure that was not found before."""
    if facts.outcome not in _CAME_FAR:
        return ()
    if not facts.ever_protected:
        return (never_protected(),)
    end = None if facts.stop.interrupted is None else explain_end(facts.stop.interrupted)
    if end is not None and end.id not in facts.known:
        return (end,)
    # The boot code of every Linux queries the ultravisor; a kernel with support then shares its buffers.
    asked, shared = facts.calls.get("QUI"), facts.calls.get("SET_SHARED_ACCESS")
    unaware = facts.linux and facts.kernel_began and asked and not shared and "missed-call" not in facts.known
    return (kernel_unaware(),) if unaware else ()


def diagnose_unused(devices: Collection[str], *, used: Collection[str]) -> Sequence[Diagnosis]:
    """Return the diagnoses of ``devices`` without iommu_platform that have no driver at the end.

    Those in ``used`` had one before. With ``quiet``, for example, a guest itself does not report them.
    """
    return tuple(unused_device(device) for device in devices if device not in used)

"""KVM's and QEMU's part of protected virtualization: configurations, CPUs and intercepted instructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.hypervisor.uvcalls import CallFailed, CallingHost
    from zseal.hypervisor.vmm import Refusal, Step, Vmm

__all__ = [
    "CallFailed",
    "CallingHost",
    "Refusal",
    "Step",
    "Vmm",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        uvcalls=("CallFailed", "CallingHost"),
        vmm=("Refusal", "Step", "Vmm"),
    )

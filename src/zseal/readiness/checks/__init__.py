"""All readiness checks, in the order in which they are reported: each may rely on those before it having been read."""

from zseal.readiness.checks import abilities, kernel, kvm, machine, virtualization
from zseal.readiness.checks.interface import Check, CheckStatus, Judgement

ALL_CHECKS: tuple[Check, ...] = (
    *machine.CHECKS,
    *kernel.CHECKS,
    *kvm.CHECKS,
    *virtualization.CHECKS,
    *abilities.CHECKS,
)

__all__ = ["ALL_CHECKS", "Check", "CheckStatus", "Judgement"]

"""All readiness checks in the order of the report: readers of one have read those before it."""

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

"""Every lint rule, in the order of its id."""

from __future__ import annotations

from zseal.domain.rules import (
    boot,
    coverage,
    cpu,
    devices,
    document,
    drivers,
    guest,
    host,
    lifecycle,
    machine,
    memory,
    parameters,
    platform,
    protection,
)
from zseal.domain.rules.interface import LintRule

_TOPICS = (
    document, machine, protection, coverage, drivers, memory, cpu, boot, devices, platform, lifecycle, host, parameters,
    guest,
)  # fmt: skip

RULES: dict[str, LintRule] = {
    rule.id: rule for rule in sorted((r for topic in _TOPICS for r in topic.TABLE.rules), key=lambda rule: rule.id)
}
"""The rule table by id."""

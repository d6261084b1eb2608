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
    memory,
    parameters,
    protection,
)
from zseal.domain.rules.interface import LintRule

_TOPICS = (document, protection, coverage, drivers, memory, cpu, boot, devices, lifecycle, host, parameters, guest)

RULES: dict[str, LintRule] = {
    rule.id: rule for rule in sorted((r for topic in _TOPICS for r in topic.TABLE.rules), key=lambda rule: rule.id)
}
"""The rule table by id."""

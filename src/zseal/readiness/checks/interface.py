"""The interface of readiness checks: a class for each question, a module for each family."""

from __future__ import annotations

import abc
import dataclasses
import enum
from typing import ClassVar

from zseal.readiness.facts import HostFacts


class CheckStatus(enum.StrEnum):
    """The four verdicts; their values are what ``--format json`` prints."""

    PASS = "pass"  # noqa: S105  # a verdict, not a password
    WARN = "warn"
    FAIL = "fail"
    NOT_APPLICABLE = "not-applicable"


@dataclasses.dataclass(frozen=True)
class Judgement:
    """A verdict: what was ``found``, and the ``fix`` (a command or an instruction) if there is something to do."""

    status: CheckStatus
    found: str
    fix: str | None = None


def passed(found: str) -> Judgement:
    """Return the verdict that everything is in order."""
    return Judgement(CheckStatus.PASS, found)


def warned(found: str, fix: str | None = None) -> Judgement:
    """Return the verdict that protected guests can run, but something deserves attention."""
    return Judgement(CheckStatus.WARN, found, fix)


def failed(found: str, fix: str) -> Judgement:
    """Return the verdict that protected guests cannot run like this."""
    return Judgement(CheckStatus.FAIL, found, fix)


def not_applicable(found: str) -> Judgement:
    """Return the verdict that there is nothing to judge here; ``found`` is the reason."""
    return Judgement(CheckStatus.NOT_APPLICABLE, found)


class Check(abc.ABC):
    """One question about a host.

    ``id`` is stable. ``meaning`` explains in one or two sentences why the answer matters. ``only_ibm_z`` checks are not
    applicable elsewhere, so their ``judge`` gets only s390x hosts.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    only_ibm_z: ClassVar[bool] = True

    @abc.abstractmethod
    def judge(self, facts: HostFacts) -> Judgement:
        """Return the verdict; never raises."""

"""The contract of an output format for lint results."""

from __future__ import annotations

import abc
import dataclasses

from zseal.domain.lint import LintReport
from zseal.domain.rules.interface import Severity


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A file that could not be checked, and why, in one line."""

    file: str
    message: str


@dataclasses.dataclass(frozen=True)
class LintRun:
    """What one run checked: a report for each file that could be read, in order."""

    reports: tuple[LintReport, ...]
    unreadable: tuple[Unreadable, ...] = ()
    strict: bool = False

    @property
    def failed(self) -> bool:
        """Whether the run ends with exit code 1."""
        return bool(self.unreadable) or any(report.fails(strict=self.strict) for report in self.reports)

    def count(self, severity: Severity) -> int:
        """How many findings of all files have this severity."""
        return sum(report.count(severity) for report in self.reports)


class LintFormat(abc.ABC):
    """Turns a run into text.

    A format never says that a guest is or will be protected: it says what was checked.
    """

    @abc.abstractmethod
    def render(self, run: LintRun) -> str:
        """Return the whole output, with a line end if it is not empty."""

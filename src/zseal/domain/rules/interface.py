"""The contract of a lint rule: a row of facts for people and one function that finds what breaks it.

A topic module makes its table with :func:`table`, and each row with the decorator that gives back. A check function
gets the :class:`Context` and yields a :class:`Hit` for every offending element. A hit may carry the change that repairs
it; the rule's ``safety`` says whether that change may be applied unasked.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from zseal.domain.document import Document, Element, Position
from zseal.domain.edits import Change, insert_child
from zseal.domain.model import Domain
from zseal.domain.versions import Target

if TYPE_CHECKING:
    from zseal.domain.facts import HostFacts
    from zseal.domain.guest import GuestInputs


class Severity(enum.Enum):
    """How bad a finding is."""

    ERROR = "error"  # will not work, or is not prepared for protected mode
    WARNING = "warning"  # risky or partly broken
    ADVICE = "advice"  # works, could be better

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


class Safety(enum.Enum):
    """Whether a rule's repair may be applied without asking."""

    SAFE = "safe"  # the guest does what its author meant
    ASK = "ask"  # mechanical, but changes what the guest does or has
    NONE = "none"  # only a person can decide


FIX = "zseal domain fix"
FIX_PARAMETERS = "zseal domain fix --parmfile FILE"


class CaughtBy(enum.Flag):
    """Who else tells the user before the guest runs."""

    NOBODY = 0
    SCHEMA = enum.auto()  # libvirt's RNG schema
    LIBVIRT = enum.auto()  # libvirt refuses to define the domain


@dataclasses.dataclass(frozen=True)
class Context:
    """What a check may look at. ``host`` and ``guest`` are None where nothing is known of them."""

    document: Document
    domain: Domain
    target: Target = dataclasses.field(default_factory=Target)
    host: HostFacts | None = None
    guest: GuestInputs | None = None
    local_files: bool = True

    @property
    def root(self) -> Element:
        """The document's root element."""
        return self.document.root

    def insert(self, parent: Element, fragment: str, *, after: Element | None = None, first: bool = False) -> Change:
        """The change that inserts ``fragment`` into ``parent``."""
        return insert_child(self.document, parent, fragment, after=after, first=first)


@dataclasses.dataclass(frozen=True)
class Hit:
    """One thing that breaks a rule: the element, or a place in another file, what is wrong there, and its repair."""

    element: Element | None
    message: str
    change: Change = dataclasses.field(default_factory=Change)
    severity: Severity | None = None  # where it differs from the rule's
    place: tuple[str, Position] | None = None  # a file and a position that are not the domain's


Check = Callable[[Context], Iterable[Hit]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A lint rule.

    ``example`` is the shortest XML that breaks it, ``needs`` what must be given for it to be checked, ``command`` what
    repairs it (empty where the remedy names another).
    """

    id: str
    severity: Severity
    title: str
    why: str
    effect: str
    remedy: str
    safety: Safety
    caught_by: CaughtBy
    example: str
    needs: str
    command: str
    check: Check


def nothing(_: Context) -> Iterable[Hit]:
    """The check of a rule that the linter itself applies before there is a tree to look at."""
    return ()


class Table:
    """The rules of one topic, in the order they were declared."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def rule(
        self,
        rule_id: str,
        severity: Severity,
        title: str,
        *,
        why: str,
        effect: str,
        remedy: str,
        safety: Safety = Safety.NONE,
        caught_by: CaughtBy = CaughtBy.NOBODY,
        example: str = "",
        needs: str = "",
        command: str = FIX,
    ) -> Callable[[Check], Check]:
        """Declare a rule whose check is the decorated function."""

        def declare(check: Check) -> Check:
            row = Rule(rule_id, severity, title, why, effect, remedy, safety, caught_by, example, needs, command, check)
            self.rules.append(row)
            return check

        return declare

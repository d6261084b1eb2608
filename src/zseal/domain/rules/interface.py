"""The contract of a lint rule: a row of texts for people and one function that finds what breaks it.

A topic module makes a :class:`Table` and declares each row with :meth:`Table.rule`, as the decorator of its check. A
check gets the :class:`Context` and yields a :class:`Hit` for every offending element. A hit may carry the change that
repairs it; the rule's ``safety`` says whether that change may be applied without asking.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from zseal.domain.document import Document, Element, Position
from zseal.domain.edits import Change, insert_child
from zseal.domain.model import Domain, Style
from zseal.domain.versions import Target

if TYPE_CHECKING:
    from zseal.domain.facts import TargetHost
    from zseal.domain.guest import GuestInputs


class Severity(enum.Enum):
    """How bad a finding is."""

    ERROR = "error"  # does not work, or does not prepare for protected mode
    WARNING = "warning"  # risky or partly broken
    ADVICE = "advice"  # works but could be better

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Severity).index(self)


class Safety(enum.Enum):
    """Whether a rule's repair may be applied without asking."""

    SAFE = "safe"  # the domain then does what its author meant
    ASK = "ask"  # mechanical, but changes what the guest does or has
    NONE = "none"  # a person has to decide


class Input(enum.Enum):
    """What a rule needs in addition to the XML; the value says how a user gives it."""

    SCHEMA = "libvirt's RNG schema (package libvirt0 or libvirt-common)"
    HOST = "host facts (--host, --host-root or --capabilities)"
    VERSIONS = "a target (--target NAME-VERSION) or host facts"
    NAMED_KERNEL = "the kernel file that the domain names, or --image"
    IMAGE = "the image (--image)"
    HOST_KEYS = "a host-key document (--host-key-document)"
    KERNEL = "the kernel (--kernel)"
    PARAMETERS = "the image's kernel parameters (--parmfile)"


FIX = "zseal domain fix"
FIX_PARAMETERS = "zseal domain fix --parmfile FILE"


class CaughtBy(enum.Flag):
    """What else reports the mistake before the guest runs."""

    NOBODY = 0
    SCHEMA = enum.auto()  # libvirt's RNG schema
    LIBVIRT = enum.auto()  # libvirt refuses to define the domain


@dataclasses.dataclass(frozen=True)
class Context:
    """What a check may use. ``host`` and ``guest`` are None if nothing is known of them."""

    document: Document
    domain: Domain
    target: Target = dataclasses.field(default_factory=Target)
    host: TargetHost | None = None
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
    """One thing that breaks a rule: the element or a place in another file, the message, and the repair."""

    element: Element | None
    message: str
    change: Change = dataclasses.field(default_factory=Change)
    severity: Severity | None = None  # if it differs from the rule's
    becomes: str = ""  # what the repair leaves, such as "removed"; empty if the remedy says it
    place: tuple[str, Position] | None = None  # a file other than the domain, and a position in it


Check = Callable[[Context], Iterable[Hit]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LintRule:
    """A lint rule.

    ``example`` is the shortest XML that breaks it, ``needs`` all the input it needs, ``style`` the only style it
    applies to (None for any), ``ports`` whether its repair is part of porting a domain from another architecture,
    ``command`` the command that repairs it (empty if the remedy names another), and
    ``module`` the name of the module that defines it.
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
    needs: frozenset[Input]
    style: Style | None
    ports: bool
    command: str
    check: Check
    module: str

    @property
    def needs_text(self) -> str:
        """What must be given, in words; empty if the XML is enough."""
        return " and ".join(item.value for item in Input if item in self.needs)

    @property
    def source(self) -> str:
        """The source file that defines the rule, relative to the repository."""
        return f"src/{self.module.replace('.', '/')}.py"


def nothing(_: Context) -> Iterable[Hit]:
    """The check of a rule that :mod:`zseal.domain.lint` itself applies to the text."""
    return ()


class Table:
    """The rules of the topic ``module``, in the order they were declared."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.rules: list[LintRule] = []

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
        needs: Iterable[Input] = (),
        style: Style | None = None,
        ports: bool = False,
        command: str = FIX,
    ) -> Callable[[Check], Check]:
        """Declare a rule whose check is the decorated function."""

        def declare(check: Check) -> Check:
            row = LintRule(
                id=rule_id, severity=severity, title=title, why=why, effect=effect, remedy=remedy, safety=safety,
                caught_by=caught_by, example=example, needs=frozenset(needs), style=style, ports=ports, command=command,
                check=check, module=self.module,
            )  # fmt: skip
            self.rules.append(row)
            return check

        return declare

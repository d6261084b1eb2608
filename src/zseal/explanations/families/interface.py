"""The interface of explanations and of the families that give them; each family of codes or messages has a module."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Sequence

from zseal.formats.uv_codes import Command
from zseal.messages import Role


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to read a code or message.

    ``code`` is its normal form, ``name`` a short name, ``source`` the program that prints it. ``cause`` is what usually
    causes it, None if the meaning includes that. ``commands`` are the names of the ultravisor calls (or the one
    diagnose code) to which this reading belongs, empty if that does not matter. ``published`` is False for answers
    whose number is zseal's own choice and which hardware will not give. ``role`` shows whether it is why something
    failed, or only that it did.
    """

    code: str
    name: str
    source: str
    meaning: str
    cause: str | None
    remedy: str
    commands: tuple[str, ...] = ()
    published: bool = True
    role: Role = Role.CAUSE


@dataclasses.dataclass(frozen=True)
class Number:
    """A question about a number, with the response reason code if both were given.

    ``hint`` is a word that came with it ("pgm", "exit", "diag", "rc", "rrc", "wait", "command") and says what it is.
    """

    value: int
    reason: int | None = None
    hint: str | None = None


@dataclasses.dataclass(frozen=True)
class Scope:
    """The commands to which ``--command`` narrows the readings; all if ``commands`` is None."""

    commands: frozenset[Command] | None = None
    diagnose: bool = True

    def admits(self, commands: Iterable[Command]) -> bool:
        """Return whether readings of any of ``commands`` are wanted."""
        return self.commands is None or not self.commands.isdisjoint(commands)


class Family(abc.ABC):
    """Contract: returns the readings that it knows and nothing for other input; never raises on any input."""

    def number(self, question: Number, scope: Scope) -> Sequence[Reading]:
        """Return the readings of a number."""
        return ()

    def text(self, line: str, scope: Scope) -> Sequence[Reading]:
        """Return the readings of one line of text."""
        return ()

    @abc.abstractmethod
    def all(self) -> Iterable[Reading]:
        """Return every reading there is, for ``--list``."""

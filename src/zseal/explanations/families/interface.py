"""The shape of an explanation, and of the families that give one: one file a family of codes or messages."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Sequence

from zseal.formats.uv_codes import Command
from zseal.messages import Role


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to read a code or message.

    ``code`` is its normal form, ``name`` a short name, ``source`` who says it. ``cause`` is what usually lies behind
    it, None if the meaning says that already. ``commands`` are the names of the ultravisor calls (or the one
    diagnose code) this reading belongs to, empty where that does not matter.
    ``published`` is False for answers whose number is zseal's own choice, so that hardware will not give it.
    ``role`` says whether it is why something failed, or only that it did.
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
    """A question about a number, with the response reason code where both were given.

    ``hint`` is a word that came with it ("pgm", "exit", "diag", "rc", "rrc", "wait", "command") and says what it is.
    """

    value: int
    reason: int | None = None
    hint: str | None = None


@dataclasses.dataclass(frozen=True)
class Scope:
    """What the readings are narrowed to by ``--command``; everything where ``commands`` is None."""

    commands: frozenset[Command] | None = None
    diagnose: bool = True

    def admits(self, commands: Iterable[Command]) -> bool:
        """Return whether readings of any of ``commands`` are wanted."""
        return self.commands is None or not self.commands.isdisjoint(commands)


class Family(abc.ABC):
    """Contract: answers what it knows, and nothing for everything else; never raises on any input."""

    def number(self, question: Number, scope: Scope) -> Sequence[Reading]:
        """Return the readings of a number."""
        return ()

    def text(self, line: str, scope: Scope) -> Sequence[Reading]:
        """Return the readings of one line of text."""
        return ()

    @abc.abstractmethod
    def all(self) -> Iterable[Reading]:
        """Return every reading there is, for ``--list``."""

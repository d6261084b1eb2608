"""The contract of an export: the same guest, said to another program."""

from __future__ import annotations

import abc
import dataclasses

from zseal.domain.model import Domain
from zseal.errors import InputError


@dataclasses.dataclass(frozen=True)
class Exported:
    """The text for the other program, and a line for everything that it can't say or that has to be done besides."""

    text: str
    notes: tuple[str, ...]


class Exporter(abc.ABC):
    """Turns a domain into the input of another program.

    The result asks for the same as the domain does, no more: a domain that lint finds errors in is refused by
    :func:`zseal.domain.export.export` before it comes here. What can't be carried over becomes a note, never silence.
    """

    @abc.abstractmethod
    def export(self, domain: Domain) -> Exported:
        """Return the text; raises InputError where the domain as a whole can't be said that way."""


class Notes:
    """Collects notes in order, each once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def add(self, line: str) -> None:
        """Add a line."""
        self._lines[line] = None

    def lines(self) -> tuple[str, ...]:
        """All lines."""
        return tuple(self._lines)


def memory_of(domain: Domain) -> int:
    """The domain's memory in bytes; raises InputError where it states none."""
    if not domain.memory:
        raise InputError("the domain states no memory", where=domain.document.name)
    return domain.memory


def vcpus_of(domain: Domain) -> int:
    """The domain's number of processors; raises InputError where it is no number."""
    if not domain.vcpus:
        raise InputError("the domain's vcpu element holds no number", where=domain.document.name)
    return domain.vcpus

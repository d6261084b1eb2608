"""The contract of an export: the same guest, described for another program."""

from __future__ import annotations

import abc
import dataclasses

from zseal.domain.model import Domain
from zseal.errors import InputError


@dataclasses.dataclass(frozen=True)
class Exported:
    """The text for the other program, and a line for everything that it cannot express or that is left to do."""

    text: str
    notes: tuple[str, ...]


class Exporter(abc.ABC):
    """Turns a domain into the input of another program.

    The result asks for the same as the domain and for nothing more. :func:`zseal.domain.export.export_document` refuses
    a domain with lint errors before. Everything that cannot be exported becomes a note.
    """

    @abc.abstractmethod
    def export(self, domain: Domain) -> Exported:
        """Return the text; raises InputError if the other program cannot express the domain as a whole."""


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
    """The domain's memory in bytes; raises InputError if the domain does not state it."""
    if not domain.memory:
        raise InputError("the domain does not state its memory size", where=domain.document.name)
    return domain.memory


def vcpus_of(domain: Domain) -> int:
    """The domain's number of processors; raises InputError if it is not a number."""
    if not domain.vcpus:
        raise InputError("the domain's vcpu element does not contain a number", where=domain.document.name)
    return domain.vcpus

"""The exception family of zseal: every error says what is wrong, where, and what to do."""

from __future__ import annotations

__all__ = [
    "FormatError",
    "InputError",
    "MissingDependencyError",
    "OutputError",
    "UsageError",
    "VerificationError",
    "ZsealError",
]


class ZsealError(Exception):
    """Base of everything that zseal raises on purpose.

    ``message`` is one line for people. ``where`` names the file or element at fault, ``hint`` is what to do; both
    become part of that line. Parameters and functions of the library are named in backquotes ("give `overwrite=True`").
    ``exit_code`` is the exit code of a command that ends with this error.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}; {self.hint}" if self.hint else text


class UsageError(ZsealError):
    """Options or arguments that do not fit together (exit code 2)."""

    exit_code = 2


class InputError(ZsealError):
    """A file or value the user gave cannot be read or used."""


class FormatError(InputError):
    """Bytes that do not have the layout that they should have."""


class OutputError(ZsealError):
    """An output cannot be written, or exists and was not to be replaced."""


class VerificationError(ZsealError):
    """A signature, digest, certificate or authentication tag is not valid."""


class MissingDependencyError(ZsealError):
    """A program or optional package that this job needs is not installed."""

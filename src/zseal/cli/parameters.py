"""Options and arguments that differ from typer's: an empty file name is refused, and arguments show their name only."""

from __future__ import annotations

from typing import Any

from typer.core import TyperArgument, TyperOption

from zseal.errors import UsageError


class Option(TyperOption):
    """An option that takes no empty file name."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return the value; raises UsageError if it is an empty file name."""
        if takes_files(self):
            refuse_empty(value, next((name for name in self.opts if name.startswith("--")), self.opts[0]))
        return super().process_value(ctx, value)


class Argument(TyperArgument):
    """An argument that takes no empty file name, and whose help is ``IMAGE``, not ``{IMAGE}`` or ``IMAGE <path>``."""

    def process_value(self, ctx: Any, value: Any) -> Any:
        """Return the value; raises UsageError if it is an empty file name."""
        if takes_files(self):
            refuse_empty(value, self.display_name_raw)
        return super().process_value(ctx, value)

    def display_type_rich(self, ctx: object) -> None:
        """Return None: the name is enough."""

    def get_usage_pieces(self, ctx: object) -> list[str]:
        """Return the name as in manuals: ``NAME``, ``[NAME]``, ``NAME...`` or ``[NAME...]``."""
        name = self.display_name_raw + ("..." if self.nargs != 1 else "")
        return [name if self.required else f"[{name}]"]


def takes_files(parameter: TyperOption | TyperArgument) -> bool:
    """Return whether the values of a parameter are names of files."""
    return "pathlib.Path" in repr(parameter.type_descriptor.annotation)


def refuse_empty(value: object, name: str) -> None:
    """Raise UsageError if one of the file names in ``value`` is empty, as that of a shell variable that is not set.

    Python would take it for the current directory, which no user named.
    """
    if value == "" or (isinstance(value, list | tuple) and "" in value):
        raise UsageError(f"{name}: the file name is empty")

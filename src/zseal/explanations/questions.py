"""Turns what people type or paste into questions: numbers, numbers that belong together, and lines of text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from zseal.errors import UsageError
from zseal.explanations.families.boot import calls_of
from zseal.explanations.families.interface import Number, Scope
from zseal.explanations.families.waits import is_psw
from zseal.formats.uv_codes import Command

# longer than any line a program prints
MAX_TEXT = 4096
MAX_LINES = 100_000
# with 0x, or digits as in QEMU's log; 64 bits are a packed response, 128 a whole PSW
_NUMBER = re.compile(r"(?:0x)?([0-9a-f]{1,32})", re.IGNORECASE)
_PAIR = re.compile(r"((?:0x)?[0-9a-f]{1,4})\s*[/,:]\s*((?:0x)?[0-9a-f]{1,4})", re.IGNORECASE)
_NAMED = re.compile(
    r"(?P<word>pgm|program interruption|exit(?: code)?|diag(?: ?308)?(?: response)?|rrc|rc|wait(?: code)?|command|uvc)"
    r"[\s:=]+(?P<value>(?:0x)?[0-9a-f]{1,16})",
    re.IGNORECASE,
)
# escape sequences of terminals and coloured logs
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_HINTS = {
    "pgm": "pgm",
    "program": "pgm",
    "exit": "exit",
    "diag": "diag",
    "rrc": "rrc",
    "rc": "rc",
    "wait": "wait",
    "command": "command",
    "uvc": "command",
}
# short names of the calls, in addition to their full names
_SHORT_NAMES: dict[str, tuple[Command, ...]] = {
    "INIT": (Command.INIT_UV,),
    "CR_CONF": (Command.CREATE_SEC_CONF,),
    "CSC": (Command.CREATE_SEC_CONF,),
    "CR_CPU": (Command.CREATE_SEC_CPU,),
    "SSCP": (Command.SET_SEC_CONF_PARAMS,),
    "UNPACK": (Command.UNPACK_IMG,),
    "VERIFY": (Command.VERIFY_IMG,),
    "IMPORT": (Command.CONV_TO_SEC_STOR,),
    "EXPORT": (Command.CONV_FROM_SEC_STOR,),
    "DESTROY": (Command.DESTROY_SEC_CONF, Command.DESTROY_SEC_CONF_FAST),
    "LARGE": (Command.VERIFY_LARGE_FRAME,),
    "PIN": (Command.PIN_PAGE_SHARED,),
    "UNPIN": (Command.UNPIN_PAGE_SHARED,),
    "SHARE": (Command.SET_SHARED_ACCESS,),
    "UNSHARE": (Command.REMOVE_SHARED_ACCESS,),
    "ATTEST": (Command.RETR_ATTEST,),
    "ADD": (Command.ADD_SECRET,),
    "LIST": (Command.LIST_SECRETS,),
    "LOCK": (Command.LOCK_SECRETS,),
    "RETRIEVE": (Command.RETR_SECRET,),
    "DUMP": (Command.DUMP_INIT, Command.DUMP_CONF_STOR_STATE, Command.DUMP_CPU, Command.DUMP_COMPLETE),
}
_DIAGNOSE_NAMES = frozenset(("DIAG", "DIAG308", "DIAGNOSE"))


def resolve_command(name: str | None) -> Scope:
    """Return the commands to which ``--command NAME`` narrows; raises UsageError for an unknown name.

    Known are the full names of ultravisor calls, their hexadecimal codes, the short names of ``_SHORT_NAMES``, KVM's
    names (``KVM_PV_VERIFY``), and ``DIAG308``.
    """
    if name is None:
        return Scope()
    word = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_").removeprefix("UVC_").removeprefix("CMD_")
    if word.replace("_", "") in _DIAGNOSE_NAMES:
        return Scope(frozenset())
    found: tuple[Command, ...] = tuple(c for c in Command if c.name == word) or _SHORT_NAMES.get(word, ())
    found = found or calls_of(word)
    if not found and (match := _NUMBER.fullmatch(word)):
        found = tuple(c for c in Command if c == int(match[1], 16))
    if not found:
        names = ", ".join((*_SHORT_NAMES, "DIAG308", *(c.name for c in Command)))
        raise UsageError(f"no command is called {name[:40]!r}", hint=f"known are {names} and the KVM_PV names")
    return Scope(frozenset(found), diagnose=False)


def parse_number(text: str) -> Number | None:
    """Return the number, or the pair of rc and rrc, if ``text`` is one as a whole, otherwise None.

    Digits without ``0x`` are hexadecimal, as QEMU prints them; after "exit" they are decimal.
    """
    text = text.strip()
    if match := _NUMBER.fullmatch(text):
        return Number(int(match[1], 16))
    if match := _PAIR.fullmatch(text):
        first, second = (int(part, 16) for part in match.groups())
        return Number(first, second)
    if match := _NAMED.fullmatch(text):
        hint = _HINTS[re.split(r"[ \d]", match["word"].lower())[0]]
        digits = match["value"]
        decimal = hint == "exit" and digits.isdecimal()
        return Number(int(digits, 10 if decimal else 16), None, hint)
    return None


def split_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the questions in a command's ``arguments``, each as one text.

    Arguments with blanks are questions of their own. Otherwise two numbers are an rc with its rrc, several numbers are
    several questions, and words are one message that was not quoted. Lines of a pasted text are separate.
    """
    if any(any(blank in argument for blank in " \t\n") for argument in arguments):
        texts = list(arguments)
    elif len(arguments) > 1 and is_psw(" ".join(arguments)):
        texts = [" ".join(arguments)]
    elif all(_NUMBER.fullmatch(argument) for argument in arguments):
        short = all(len(argument.lower().removeprefix("0x")) <= 4 for argument in arguments)
        texts = ["/".join(arguments)] if len(arguments) == 2 and short else list(arguments)
    elif all(parse_number(argument) for argument in arguments):
        texts = list(arguments)
    else:
        texts = [" ".join(arguments)]
    return [line for text in texts for _, line in split_log(text)]


def split_log(text: str) -> list[tuple[int, str]]:
    """Return the lines of ``text`` that are not empty, blanks as one, each with its number from 1."""
    lines = ((number, " ".join(_ESCAPES.sub("", line).split())) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line[:MAX_TEXT]) for number, line in lines if line][:MAX_LINES]

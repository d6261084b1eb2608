"""Sentences of bootloaders, s390-tools and zseal that mean or quote an answer of the ultravisor."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from zseal.explanations.families.interface import Family, Number, Reading, Scope
from zseal.explanations.families.ultravisor import UltravisorAnswers, commands_of, reading_of
from zseal.formats.uv_codes import RESPONSE_CODES, Command, Issuer
from zseal.messages.bootloaders import ANSWERS, BOOTLOADER
from zseal.messages.message import RC_AND_RRC
from zseal.messages.s390_tools import CALLS_OF_TOOLS, TOOLS

# of every tool of s390-tools that talks to the ultravisor: Ultravisor: 'TEXT' (RC,RRC)
_TOOL = re.compile(r"\((?P<rc>0x[0-9a-f]{4}),\s*(?P<rrc>0x[0-9a-f]{4})\)", re.IGNORECASE)
_SPEAKERS = re.compile("|".join(("ultravisor", *CALLS_OF_TOOLS)))
_ANSWERED = re.compile(rf"\b(?P<command>[a-z_]{{3,30}}) answered {RC_AND_RRC}", re.IGNORECASE)
_DIAGNOSIS = re.compile(r"\bdiagnosis: (?P<meaning>[^;]{1,1000}); (?P<remedy>.{1,1000})")
_GUEST_CALLS = tuple(c for c in RESPONSE_CODES if c.issuer is Issuer.GUEST and c >= Command.RETR_ATTEST)
_READ = UltravisorAnswers()


class Sentences(Family):
    """Lines of text with an answer in them, in words or in digits."""

    def text(self, line: str, scope: Scope) -> Sequence[Reading]:
        """Search for a bootloader's sentence, a tool's pair of codes, and zseal's own words."""
        low = line.lower()
        if match := _DIAGNOSIS.search(line):
            return [Reading("diagnosis", "DIAGNOSIS", "zseal run", match["meaning"], None, match["remedy"])]
        if match := _ANSWERED.search(low):
            return self._answers(match, [c for c in Command if c.name.lower() == match["command"]], "zseal")
        for text, answer in ANSWERS:
            if text.lower() in low:
                reading = reading_of(answer, commands_of(answer))
                return [dataclasses.replace(reading, source=f"{reading.source}, reported by the {BOOTLOADER}")]
        match = _TOOL.search(low) if _SPEAKERS.search(low) else _TOOL.fullmatch(low.strip())
        if match is not None:
            named = next((calls for name, calls in CALLS_OF_TOOLS.items() if name in low), _GUEST_CALLS)
            return self._answers(match, named, TOOLS)
        return ()

    @staticmethod
    def _answers(match: re.Match[str], commands: Iterable[Command], by: str) -> list[Reading]:
        narrowed = Scope(frozenset(commands) or None)
        readings = _READ.number(Number(int(match["rc"], 16), int(match["rrc"], 16), "rc"), narrowed)
        return [dataclasses.replace(reading, source=f"{reading.source}, reported by {by}") for reading in readings]

    def all(self) -> Iterable[Reading]:
        """Return nothing: the answers are listed by their own family."""
        return ()


FAMILIES: tuple[Family, ...] = (Sentences(),)

"""Lines of text: the messages of ``zseal.messages``, and lines of kernels with an rc in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from zseal.explanations.families.interface import Family, Number, Reading, Scope
from zseal.explanations.families.ultravisor import UltravisorAnswers
from zseal.formats.uv_codes import Command
from zseal.messages import ALL_MESSAGES, Meaning, Message
from zseal.messages.guest_kernel import GUEST
from zseal.messages.host_kernel import HOST, INIT_FAILED
from zseal.messages.message import RC_AND_RRC

# lines (in lower case) with a code after a known fragment, and the call that returned it
_CODED: tuple[tuple[re.Pattern[str], Command | None, str], ...] = (
    (INIT_FAILED, Command.INIT_UV, HOST),
    (re.compile(rf"(?<!un)share uvc failed.{{0,20}}?{RC_AND_RRC}"), Command.SET_SHARED_ACCESS, GUEST),
    (re.compile(rf"unshare uvc failed.{{0,20}}?{RC_AND_RRC}"), Command.REMOVE_SHARED_ACCESS, GUEST),
    (re.compile(rf"protvirt .{{0,80}}?{RC_AND_RRC}"), None, HOST),
    (re.compile(RC_AND_RRC), None, "a program"),
)
# KVM's debug lines name the step in words
_KVM_STEPS = (
    ("destroy vm fast", Command.DESTROY_SEC_CONF_FAST),
    ("destroy vcpu", Command.DESTROY_SEC_CPU),
    ("destroy cpu", Command.DESTROY_SEC_CPU),
    ("destroy", Command.DESTROY_SEC_CONF),
    ("create vcpu", Command.CREATE_SEC_CPU),
    ("create vm", Command.CREATE_SEC_CONF),
    ("set parms", Command.SET_SEC_CONF_PARAMS),
    ("unpack", Command.UNPACK_IMG),
    ("verify", Command.VERIFY_IMG),
    ("prep reset", Command.PREPARE_RESET),
    ("unshare", Command.SET_UNSHARE_ALL),
    ("set cpu", Command.CPU_SET_STATE),
    ("reset clear", Command.CPU_RESET_CLEAR),
    ("reset initial", Command.CPU_RESET_INITIAL),
    ("reset normal", Command.CPU_RESET),
    ("dump init", Command.DUMP_INIT),
    ("dump cpu", Command.DUMP_CPU),
    ("dump storage state", Command.DUMP_CONF_STOR_STATE),
)
_ANSWERS = UltravisorAnswers()


def _reading(message: Message, meaning: Meaning) -> Reading:
    return Reading(
        f'"{message.text}"',
        message.name,
        message.source,
        meaning.meaning,
        meaning.cause,
        meaning.remedy,
        role=message.role,
    )


class Messages(Family):
    """Lines of text, known by a fragment."""

    def text(self, line: str, scope: Scope) -> Sequence[Reading]:
        """Search for every known fragment, and for an rc with its rrc."""
        low = line.lower()
        readings = [_reading(each, each.read(line)) for each in ALL_MESSAGES if each.is_in(low)]
        if "kvm_pv_" in low or " answered rc" in low:
            return readings  # other families read the lines of QEMU, the bootloader, and zseal
        for pattern, known, source in _CODED:
            match = pattern.search(low)
            if match is None:
                continue
            command = known
            if command is None and "protvirt" in low:
                command = next((c for words, c in _KVM_STEPS if words in low), None)
            narrowed = scope if command is None else Scope(frozenset((command,)))
            codes = _ANSWERS.number(Number(int(match["rc"], 16), int(match["rrc"], 16), "rc"), narrowed)
            return [*codes, *readings] if codes else [*readings, *self._undocumented(match, source)]
        return readings

    @staticmethod
    def _undocumented(match: re.Match[str], source: str) -> list[Reading]:
        return [
            Reading(
                f"rc {int(match['rc'], 16):#06x} rrc {int(match['rrc'], 16):#06x}",
                "UNDOCUMENTED",
                f"ultravisor, reported by {source}",
                "an answer that is not documented",
                "IBM publishes no meaning for it",
                "ask IBM support with both codes",
            )
        ]

    def all(self) -> Iterable[Reading]:
        """Return every message."""
        return (_reading(each, each.meaning) for each in ALL_MESSAGES)


FAMILIES: tuple[Family, ...] = (Messages(),)

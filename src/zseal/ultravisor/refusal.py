"""The exceptions that end a call of the ultravisor: an answer other than success, and no answer."""

from __future__ import annotations

from zseal.errors import ZsealError
from zseal.formats.uv_codes import ResponseCode


class UvcRefusal(ZsealError):  # noqa: N818 - the term for what it is
    """The ultravisor refused a call: ``rc`` and ``rrc`` are what its control block gets, ``answer`` their entry.

    ``rrc`` is used if the answer leaves the reason code open; ``detail`` adds details for people; ``done`` counts
    the pages of a run that were completed before.
    """

    def __init__(self, answer: ResponseCode, *, rrc: int = 0, detail: str | None = None, done: int = 0) -> None:
        self.answer = answer
        self.rc = answer.rc
        self.rrc = rrc if answer.rrc is None else answer.rrc
        self.done = done
        meaning = f"{answer.meaning} ({detail})" if detail else answer.meaning
        super().__init__(
            f"refused by the ultravisor with rc {self.rc:#06x} rrc {self.rrc:#06x} ({type(answer).__name__}."
            f"{answer.name}): {meaning}",
            hint=answer.advice,
        )


class OutOfMemoryError(ZsealError):
    """This computer has too little memory left for a call, which was done completely then or not at all."""

    def __init__(self) -> None:
        super().__init__(
            "this computer has too little memory left for an ultravisor call",
            hint="give guests less memory, or end other programs",
        )

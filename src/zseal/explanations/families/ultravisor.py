"""Response codes (rc) and response reason codes (rrc) of the ultravisor, by command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from zseal.explanations.families.interface import Family, Number, Reading, Scope
from zseal.formats.uv_codes import (
    RC_NEED_DESTROY,
    RESPONSE_CODES,
    AddSecret,
    Attest,
    Command,
    CreateConf,
    Generic,
    Init,
    ResponseCode,
    SetParameters,
    VerifyImage,
)
from zseal.messages import Role

SOURCE = "ultravisor"

# what usually causes an answer, if the meaning alone does not show it
_CAUSES: dict[ResponseCode, str] = {
    Init.CPUS_RUNNING: "the host kernel did not stop its other CPUs; seen with faulty firmware or kernels only",
    Init.ALREADY: "an earlier kernel (before a kexec) already started the ultravisor",
    CreateConf.END: "the guest has more memory than /sys/firmware/uv/query/max_address allows",
    SetParameters.VERSION: "the image was built by a newer tool, or for newer firmware, than this machine has",
    SetParameters.PLAINTEXT_FLAG: (
        "the image was built with an option newer than the machine; compare zseal image info with "
        "/sys/firmware/uv/query/supp_se_hdr_pcf"
    ),
    SetParameters.HOST_KEY: (
        "the image was built with the host-key document of another machine, or the machine's host key was replaced "
        "since; zseal image test IMAGE -k DOCUMENT shows which documents fit"
    ),
    SetParameters.CUSTOMER_KEY: "the header was damaged or rewritten",
    SetParameters.BACKUP_KEY: (
        "the image is built for a backup host key that is not the one installed, or the flag for backup keys is off"
    ),
    SetParameters.SECRET_FLAG: "the image was built with an option newer than the machine (CCK update needs z17)",
    SetParameters.HEADER_SIZE: "the header was damaged or cut off",
    SetParameters.ENCRYPTED_SIZE: "the header was damaged, or has items this firmware does not know",
    SetParameters.NO_KEY_SLOTS: "the header was damaged: no tool writes one without key slots",
    SetParameters.AUTHENTICATION: "a bit of the header was changed, or it was sealed with another key",
    VerifyImage.ADDRESSES: "the loader put a component elsewhere: the image was moved, cut off, or loaded partly",
    VerifyImage.PAGES: "the file was damaged in transfer or changed; zseal image info --check-digests IMAGE shows it",
    VerifyImage.TWEAKS: "the IPL parameter block belongs to another image or was edited",
    VerifyImage.COUNT: "the file was cut off, or the IPL parameter block lists other components than the header",
    Attest.DECRYPTION: "the request was created for another machine's host key, or changed since",
    AddSecret.DECRYPTION: "the request was created for another machine's host key, or changed since",
    AddSecret.CANNOT_ADD: (
        "the request names another image, another instance (configuration id), or another extension secret"
    ),
    AddSecret.LOCKED: "pvsecret lock, or a unit that locks the store at the end of the boot, ran already",
    Generic.INVALID_COMMAND: (
        "the firmware does not offer the call, or a guest issued a host's call, or a host a guest's call"
    ),
    Generic.INVALID_STATE: "the call came too early, too late or twice",
    Generic.INVALID_CONFIGURATION: "the guest was already destroyed",
    Generic.MORE_DATA: "not an error: Linux asks with the size it knows, newer firmware has more to say",
}
# remedies that are better than those in the table of the ultravisor's own messages
_REMEDIES: dict[ResponseCode, str] = {
    SetParameters.VERSION: "build the image with the oldest header version, or update the machine's firmware",
    CreateConf.END: "give the guest less memory",
    Generic.INVALID_COMMAND: "zseal host info shows what the firmware offers",
}
_EVERY = "every command"
# users see the answers to these; the others stay between kernel and firmware
_LIKELY = frozenset(
    (
        Command.SET_SEC_CONF_PARAMS,
        Command.VERIFY_IMG,
        Command.UNPACK_IMG,
        Command.RETR_ATTEST,
        Command.ADD_SECRET,
        Command.RETR_SECRET,
    )
)


def _code(answer: ResponseCode) -> str:
    return f"rc {answer.rc:#06x}" if answer.rrc is None else f"rc {answer.rc:#06x} rrc {answer.rrc:#06x}"


def reading_of(answer: ResponseCode, commands: Sequence[Command]) -> Reading:
    """Return the reading of one answer that ``commands`` (none: every command) can give."""
    return Reading(
        code=_code(answer),
        name=answer.name,
        source=SOURCE,
        meaning=answer.meaning,
        cause=_CAUSES.get(answer),
        remedy=_REMEDIES.get(answer, answer.advice),
        commands=tuple(command.name for command in commands) or (_EVERY,),
        published=answer.published,
        role=Role.NORMAL if answer in (Generic.EXECUTED, Generic.MORE_DATA) else Role.CAUSE,
    )


def commands_of(answer: ResponseCode) -> tuple[Command, ...]:
    """Return the commands that can give ``answer``, none for the generic ones."""
    return tuple(command for command, tables in RESPONSE_CODES.items() if type(answer) in tables)


def _tables() -> Iterator[tuple[ResponseCode, tuple[Command, ...]]]:
    """Yield every answer with the commands that can give it; none for the generic ones."""
    givers: dict[type[ResponseCode], list[Command]] = {}
    for command, tables in RESPONSE_CODES.items():
        for table in tables:
            givers.setdefault(table, []).append(command)
    for table, commands in givers.items():
        for answer in table:
            yield answer, tuple(commands)
    for answer in Generic:
        yield answer, ()


class UltravisorAnswers(Family):
    """All answers to a UVC."""

    def number(self, question: Number, scope: Scope) -> Sequence[Reading]:
        """Read the number as an rc, or as an rrc if it came alone."""
        if question.hint not in (None, "rc", "rrc"):
            return ()
        wanted = [
            (answer, commands)
            for answer, commands in _tables()
            if (scope.commands is None or not commands or scope.admits(commands))
        ]
        if question.hint == "rrc":
            return self._by_reason(question.value, wanted)
        rc = question.value & ~RC_NEED_DESTROY
        found = [(answer, commands) for answer, commands in wanted if answer.rc == rc]
        if question.reason is not None:
            exact = [(a, c) for a, c in found if a.rrc == question.reason]
            # an rrc of 0 says no more than the rc itself
            found = exact or [(a, c) for a, c in found if a.rrc is None or not question.reason]
        found.sort(key=lambda pair: (not pair[0].published, _LIKELY.isdisjoint(pair[1])))
        readings = [reading_of(answer, commands) for answer, commands in found]
        if question.hint is None and question.reason is None:
            readings += self._by_reason(question.value, wanted)
        return readings

    @staticmethod
    def _by_reason(value: int, wanted: Sequence[tuple[ResponseCode, tuple[Command, ...]]]) -> list[Reading]:
        return [reading_of(answer, commands) for answer, commands in wanted if value and answer.rrc == value]

    def all(self) -> Iterable[Reading]:
        """Return every documented answer."""
        return (reading_of(answer, commands) for answer, commands in _tables())


class UltravisorCalls(Family):
    """The command codes themselves."""

    @staticmethod
    def _reading(command: Command) -> Reading:
        return Reading(
            code=f"command {command:#06x}",
            name=command.name,
            source="caller of the ultravisor",
            meaning=f"ultravisor call: {command.title}",
            cause=f"issued by the {(command.issuer.name or '').lower().replace('both', 'host or the guest')}",
            remedy=f"it is installed if bit {command.bit} of the list of calls is on (zseal host info)",
            commands=(command.name,),
        )

    def number(self, question: Number, scope: Scope) -> Sequence[Reading]:
        """Read the number as a command code, unless it is plainly something else."""
        if question.reason is not None or question.hint not in (None, "command"):
            return ()
        return [self._reading(c) for c in Command if c == question.value and scope.admits((c,))]

    def all(self) -> Iterable[Reading]:
        """Return every command."""
        return map(self._reading, Command)


FAMILIES: tuple[Family, ...] = (UltravisorAnswers(), UltravisorCalls())

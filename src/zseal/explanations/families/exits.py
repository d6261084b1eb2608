"""Exit codes of ``zseal run``, which show how the guest ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zseal.explanations.families.interface import Family, Number, Reading, Scope
from zseal.messages import Role

_SOURCE = "zseal run"
# by the value of zseal.guest.outcome.Outcome: meaning, cause, remedy
OUTCOMES: dict[str, tuple[str, str, str]] = {
    "poweroff": ("the guest shut itself down", "no error", "nothing to do"),
    "failed": (
        "zseal itself failed, before or while the guest ran",
        "an unusable input or a missing program; the line on stderr names it",
        "do what that line says",
    ),
    "panic": (
        "the guest stopped in a disabled wait: a kernel panic, or its bootloader gave up",
        "look at the last lines of its console",
        "explain those lines: zseal explain 'LINE'",
    ),
    "refused": (
        "the ultravisor refused the image; its bootloader reported that and stopped",
        "the image is not built for this machine's host key, or was changed",
        "zseal image verify IMAGE --machine DIR shows the same without booting; zseal explain the codes that it prints",
    ),
    "timeout": (
        "the time given with --timeout was over",
        "the guest took longer, or waits for something",
        "look at the console; give more time",
    ),
    "lost": (
        "QEMU ended by itself or was killed",
        "too little memory on this computer, a faulty QEMU, or a signal",
        "check QEMU's own messages on stderr and the system's log",
    ),
    "reset": (
        "the guest rebooted, and its domain ends then instead",
        "<on_reboot>destroy</on_reboot> in the domain; the reboot itself may come from a kernel panic (panic=SECONDS)",
        "look at the last lines of its console; write <on_reboot>restart</on_reboot> if it is to reboot",
    ),
    "watchdog": ("the guest's watchdog expired", "the guest hung", "look at its console"),
    "integrity": (
        "a page that was paged out came back changed, so the ultravisor refused it and the guest was stopped",
        "the page file was changed, cut off, mixed up or replaced by an older one",
        "start the guest again; on hardware its VMM would have got SIGSEGV",
    ),
    "io-violation": (
        "the guest was about to give a device memory that it does not share, and was stopped before that",
        "a device without iommu_platform=on, or a driver that does not use the bounce buffers",
        "the message names device, queue, descriptor and address; --io-policy audit only counts, and the guest goes on",
    ),
    "stopped": ("stopped by its user (Ctrl-C, or zseal guest stop)", "no error", "nothing to do"),
}
# the beginnings of the one line in which zseal run reports a guest's end, with the outcome; letter case does not matter
_SENTENCES: tuple[tuple[str, str], ...] = (
    ("the guest powered off", "poweroff"),
    ("the guest's watchdog expired", "watchdog"),
    ("the guest rebooted", "reset"),
    ("the guest lost a disk", "failed"),
    ("the guest was stopped before a device", "io-violation"),
    ("the guest was stopped", "stopped"),
    ("the guest is lost", "lost"),
    ("the guest did not end within", "timeout"),
    ("zseal could not go on with the guest", "failed"),
    ("the image's bootloader gave up", "refused"),
    ("the guest stopped for good", "panic"),
)
_USAGE = Reading(
    "exit code 2",
    "USAGE",
    "zseal",
    "the command line was wrong",
    "an option or argument that does not exist or does not fit",
    "zseal COMMAND --help",
)
_SIGNALS = {
    code: Reading(f"exit code {code}", name, _SOURCE, f"{end}; the guest was stopped first", cause, "nothing to do")
    for code, name, end, cause in (
        (129, "HANGUP", "ended by a hang-up signal", "the terminal was closed; with nohup it goes on"),
        (131, "QUIT", "ended by a quit signal", "Ctrl-\\ on the terminal"),
        (143, "TERMINATED", "ended by a termination signal", "kill, a service manager, or the end of the session"),
    )
}


def _readings() -> dict[int, Reading]:
    # imported late: the run's own module brings the ultravisor with it
    from zseal.guest.outcome import USAGE_EXIT_CODE, Outcome

    found = {USAGE_EXIT_CODE: _USAGE} | _SIGNALS
    for outcome in Outcome:
        if outcome.value in OUTCOMES:
            code = outcome.exit_code
            role = Role.NORMAL if outcome in (Outcome.POWEROFF, Outcome.STOPPED) else Role.CONSEQUENCE
            found[code] = Reading(f"exit code {code}", outcome.name, _SOURCE, *OUTCOMES[outcome.value], role=role)
    return dict(sorted(found.items()))


class ExitCodes(Family):
    """Exit codes, read as such only if the question says so, because such small numbers also mean other things."""

    def number(self, question: Number, scope: Scope) -> Sequence[Reading]:
        """Read the number as an exit code (decimal, as shells print it)."""
        if question.hint != "exit":
            return ()
        reading = _readings().get(question.value)
        return [] if reading is None else [reading]

    def text(self, line: str, scope: Scope) -> Sequence[Reading]:
        """Recognise the line that ``zseal run`` ends with."""
        low = line.lower()
        outcome = next((outcome for begin, outcome in _SENTENCES if begin in low), None)
        if outcome is None:
            return ()
        return [reading for reading in _readings().values() if outcome == reading.name.lower().replace("_", "-")]

    def all(self) -> Iterable[Reading]:
        """Return every exit code."""
        return _readings().values()


FAMILIES: tuple[Family, ...] = (ExitCodes(),)

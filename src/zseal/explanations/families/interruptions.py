"""Program-interruption codes, above all those of secure storage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zseal.arch.interruption import ProgramCode
from zseal.explanations.families.interface import Family, Number, Reading, Scope

_SOURCE = "CPU (program interruption)"
_TEXTS: dict[ProgramCode, tuple[str, str, str]] = {
    ProgramCode.SECURE_PAGE_SIZE: (
        "a protected guest's page is mapped by a 1 MiB entry, but was not verified as a secure large frame",
        "huge-page backing of a protected guest by a hypervisor that did not call VERIFY_LARGE_FRAME",
        "back protected guests by 4 KiB pages: no <hugepages>, hpage=0 for kvm",
    ),
    ProgramCode.SECURE_STORAGE_ACCESS: (
        "the host touched storage that belongs to a protected guest or was donated to the ultravisor",
        "normal if the kernel then exports the page; an error if host code reads guest memory that it must not read",
        "nothing to do while the host goes on; after a panic or SIGSEGV report it, with the TEID, to the distribution",
    ),
    ProgramCode.NON_SECURE_STORAGE_ACCESS: (
        "a protected guest touched a page that is not secure",
        "normal after the page was exported: the kernel imports it again; if the import fails because the host changed "
        "the page meanwhile, the guest is ended",
        "nothing to do while the guest goes on; after a SIGSEGV of QEMU find out what changed guest memory or its swap "
        "space",
    ),
    ProgramCode.SECURE_STORAGE_VIOLATION: (
        "a protected guest touched storage that belongs to another protected guest, or to itself before a reboot",
        "a page left over from an earlier boot, which the kernel destroys; otherwise an error of the hypervisor",
        "nothing to do while the guest goes on; otherwise update the host kernel",
    ),
    ProgramCode.OPERATION: (
        "the instruction does not exist here",
        "with opcode b9a4 (ultravisor call): facility 158 is missing, so there is no ultravisor",
        "zseal host check",
    ),
    ProgramCode.PRIVILEGED_OPERATION: (
        "a privileged instruction was used by a program that is not the kernel",
        "an ultravisor call from user space",
        "use /dev/uv from user space",
    ),
    ProgramCode.PROTECTION: (
        "the storage may not be changed or read like this",
        "the control block of an ultravisor call lies in read-only storage",
        "this is an error of the calling program",
    ),
    ProgramCode.ADDRESSING: (
        "the address is outside memory",
        "the guest has less memory than the program or parameter block needs",
        "give the guest more memory",
    ),
    ProgramCode.SPECIFICATION: (
        "an operand is not allowed, such as an odd register or an unaligned address",
        "DIAG 308 with a subcode the hypervisor does not offer: subcodes 8 to 10 need the CPU feature unpack",
        "zseal host check on the host; zseal domain lint on the domain",
    ),
}
# these mean nothing else in this field; the common ones are read so only if the question says "pgm"
_ALWAYS = frozenset(
    (
        ProgramCode.SECURE_PAGE_SIZE,
        ProgramCode.SECURE_STORAGE_ACCESS,
        ProgramCode.NON_SECURE_STORAGE_ACCESS,
        ProgramCode.SECURE_STORAGE_VIOLATION,
    )
)


def _reading(code: ProgramCode) -> Reading:
    meaning, cause, remedy = _TEXTS[code]
    return Reading(f"program interruption {code:#04x}", code.name, _SOURCE, meaning, cause, remedy)


class ProgramInterruptions(Family):
    """The codes in the low-core, in kernel messages ("PGM 0x3d") and in traces."""

    def number(self, question: Number, scope: Scope) -> Sequence[Reading]:
        """Read the number as a program-interruption code."""
        if scope.commands is not None or question.reason is not None or question.hint not in (None, "pgm"):
            return ()
        return [
            _reading(code) for code in _TEXTS if code == question.value and (question.hint == "pgm" or code in _ALWAYS)
        ]

    def all(self) -> Iterable[Reading]:
        """Return every code with an explanation."""
        return map(_reading, _TEXTS)


FAMILIES: tuple[Family, ...] = (ProgramInterruptions(),)

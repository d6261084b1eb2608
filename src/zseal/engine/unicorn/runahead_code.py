"""The instructions that run-ahead may execute: those whose whole effect is on general registers, storage and the PSW.

Instructions that Unicorn (QEMU 5.0's translator) executes differently than QEMU 7.2 are excluded as well:
tests/integration/runahead compares them instruction by instruction.

Excluded instructions end a run-ahead before the block of code that contains them: privileged and semiprivileged
instructions, clocks, SVC and PC, changes of address space or addressing mode, access registers as operand addresses,
floating point, vectors, transactions, all that a CPU may interrupt half-way, and TRANSLATE, which Unicorn has partly
executed when it finds that it cannot store to the next page. Opcodes are those of the z/Architecture Principles of
Operation, appendix B.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from zseal.arch.instructions import Pattern, classify, instruction_length

# By the first byte alone: RR, RX, RS, SI and SS formats.
_ONE_BYTE = frozenset(
    bytes.fromhex(
        "05 06 07 0d 10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f"
        "40 41 42 43 45 46 47 48 49 4a 4b 4c 4d 4e 4f 50 54 55 56 57 58 59 5a 5b 5c 5d 5e 5f 71"
        "84 85 86 87 88 89 8a 8b 8c 8d 8e 8f 90 91 92 94 95 96 97 98 9a 9b ba bb bd be"
        "d1 d2 d3 d4 d5 d6 d7 dd"
    )
)
# By the first byte and the low half of the second: RI and RIL formats.
_FOUR_BITS = {
    0xA5: frozenset(range(16)),
    0xA7: frozenset(range(16)),
    0xC0: frozenset((0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
    0xC2: frozenset((0, 1, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15)),
    0xC4: frozenset((2, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15)),
    0xC6: frozenset((0, 2, 6, 7, 8, 10, 12, 13, 14, 15)),
}
# By the first two bytes: RRE, RRF, S and SIL formats.
_TWO_BYTES = {
    0xB2: frozenset(bytes.fromhex("22 4d 4e 4f 52 e8 fa")),  # IPM, access registers as mere values, MSR, PPA, NIAI
    0xB9: frozenset(
        bytes.fromhex(
            "00 01 02 03 04 06 07 08 09 0a 0b 0c 0d 0f 10 11 12 13 14 16 17 18 19 1a 1b 1c 1d 1f 20 21 26 27 30 31 46"
            "80 81 82 83 84 85 86 87 88 89 94 95 96 97 98 99"
            "e2 e4 e6 e7 e8 e9 ea eb f2 f4 f6 f7 f8 f9 fa fb"
        )
    ),
    0xE5: frozenset(bytes.fromhex("44 48 4c 54 55 58 59 5c 5d")),
}
# By the first byte and the last of six: RXY, RSY, SIY and RIE formats.
_LAST_BYTE = {
    0xE3: frozenset(
        bytes.fromhex(
            "02 04 06 08 09 0a 0b 0c 0d 0e 0f 12 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f 20 21 24 26 2a 2e 2f"
            "30 31 32 34 36 3a 3b 3e 3f 46 50 51 54 55 56 57 58 59 5a 5b 5c 5e 5f 70 71 72 73 76 77 78 79 7a 7b 7c"
            "80 81 82 86 87 88 89 8e 8f 90 91 94 95 96 97 98 99"
        )
    ),
    0xEB: frozenset(
        bytes.fromhex(
            "04 0a 0b 0c 0d 14 1c 1d 20 21 24 26 2c 2d 30 31 3e 44 45 51 52 54 55 56 57 6a 6e 7a 7e"
            "90 96 98 9a 9b dc dd de df e0 e1 e2 e3 e4 e6 e7 ea f2 f3 f4 f6 f7 fa"
        )
    ),
    0xEC: frozenset(
        bytes.fromhex("42 44 45 46 4e 54 55 56 57 59 64 65 76 77 7c 7d 7e 7f d8 d9 da db e4 e5 f6 f7 fc fd fe ff")
    ),
}
_RELATIVE = frozenset((first, half) for first in (0xC4, 0xC6) for half in range(16)) | {(0xC0, n) for n in (0, 4, 5)}
_EXRL = (0xC6, 0)
_ACCESS_ONE_BYTE = frozenset((0x9A, 0x9B))  # LAM, STAM; LAMY and STAMY end alike
_ACCESS_TWO_BYTES = frozenset((0x4D, 0x4E, 0x4F))  # CPYA, SAR, EAR
_MASK64 = (1 << 64) - 1


# Signed additions and subtractions. Unicorn misses the overflow of adding the most negative number to itself and of
# subtracting it from zero: the result is right, the condition code is not. They are included if the next instructions
# certainly set another condition code before one uses it.
_SIGNED = {
    0: frozenset(bytes.fromhex("1a 1b 5a 5b")),
    0xC2: frozenset((9,)),
    0xB9: frozenset(bytes.fromhex("08 09 18 19 e8 e9 f8 f9")),
    0xE3: frozenset(bytes.fromhex("08 09 18 19 5a 5b")),
}
# Of the instructions that may run ahead, by the same keys: those that set the condition code regardless of its value
# ...
_SETS_CODE = {
    0: frozenset(bytes.fromhex("12 14 15 16 17 19 1e 1f 49 54 55 56 57 59 5e 5f 91 94 95 96 97 ba bd d4 d5 d6 d7")),
    0xA7: frozenset((0, 1, 2, 3, 10, 11, 14, 15)),
    0xB9: frozenset(bytes.fromhex("02 0a 0b 12 1a 1b 20 21 30 31 80 81 82 e4 e6 e7 ea eb f4 f6 f7 fa fb")),
    0xC2: frozenset((4, 5, 8, 10, 11, 12, 13, 14, 15)),
    0xE3: frozenset(bytes.fromhex("02 0a 0b 12 1a 1b 20 21 30 31 32 54 55 56 57 59 5e 5f 80 81 82")),
    0xE5: frozenset(bytes.fromhex("54 55 58 59 5c 5d")),
    0xEB: frozenset(bytes.fromhex("14 20 21 30 51 54 55 56 57 7a 7e")),
}
# ... and those that do not change it.
_KEEPS_CODE = {
    0: frozenset(bytes.fromhex("18 40 41 42 43 48 50 58 88 89 90 92 98 d2")),
    0xA7: frozenset((5, 8, 9)),
    0xB2: frozenset(bytes.fromhex("4e 4f")),
    0xB9: frozenset(bytes.fromhex("04 06 07 14 16 17 26 27 84 85 94 95")),
    0xC0: frozenset((0, 1, 5, 14, 15)),
    0xC4: frozenset(range(16)),
    0xE3: frozenset(bytes.fromhex("04 14 15 16 17 24 50 58 70 71 72 73 76 77 78 90 91 94 95")),
    0xE5: frozenset(bytes.fromhex("44 48 4c")),
    0xEB: frozenset(bytes.fromhex("04 0c 0d 1c 1d 24")),
}
_LOOK_FORWARD = 24  # instructions


class Verdict(enum.Enum):
    """Whether run-ahead may execute a block of code."""

    NO = "no"
    YES = "yes"
    ACCESS_REGISTERS = "yes, and it uses access registers"


def _in(table: dict[int, frozenset[int]], instruction: bytes) -> bool:
    """Whether ``instruction`` is in ``table``: by first byte (0: which is all there is) and the rest of its opcode."""
    first = instruction[0]
    if first in (0xA7, 0xC0, 0xC2, 0xC4):
        return instruction[1] & 15 in table.get(first, ())
    if first in (0xB2, 0xB9, 0xE5):
        return instruction[1] in table.get(first, ())
    if first in (0xE3, 0xEB):
        return instruction[5] in table.get(first, ())
    return first in table[0]


def runs_ahead(instruction: bytes) -> bool:
    """Whether run-ahead may execute ``instruction``; an EXECUTE RELATIVE LONG is judged without its target."""
    first, second = instruction[0], instruction[1]
    if first in _ONE_BYTE:
        return not _names_half_a_pair(instruction)
    if first in _FOUR_BITS:
        if (first, second & 15) in _RELATIVE and instruction[2] in range(0x30, 0xD0):
            return False  # further than 1.5 GiB away, for which translators are wrong
        return second & 15 in _FOUR_BITS[first]
    if first in _TWO_BYTES:
        return second in _TWO_BYTES[first]
    if first not in _LAST_BYTE or instruction[5] not in _LAST_BYTE[first]:
        return False
    return not breaks_translator(instruction) and not _names_half_a_pair(instruction)


def _names_half_a_pair(instruction: bytes) -> bool:
    """Whether this is a COMPARE DOUBLE AND SWAP with an odd register: a specification exception, Unicorn has none."""
    swaps = instruction[0] == 0xBB or (instruction[0] == 0xEB and instruction[5] in (0x31, 0x3E))
    return swaps and instruction[1] & 0x11 != 0


def breaks_translator(instruction: bytes) -> bool:
    """Whether ``instruction`` makes QEMU's translator, which Unicorn's is, end its whole process.

    The forms of RNSBG, ROSBG and RXSBG that only set the condition code are "tcg fatal error" in QEMU 7.2.
    """
    return instruction[0] == 0xEC and instruction[5] in (0x54, 0x56, 0x57) and instruction[2] & 0x80 != 0


_BRANCH_ONE_BYTE = frozenset(bytes.fromhex("05 06 07 0d 45 46 47 4d 84 85 86 87"))
_BRANCH_FOUR_BITS = {0xA7: frozenset((4, 5, 6, 7)), 0xC0: frozenset((4, 5))}
_BRANCH_LAST_BYTE = {
    0xE3: frozenset(bytes.fromhex("46")),
    0xEB: frozenset(bytes.fromhex("44 45")),
    0xEC: frozenset(bytes.fromhex("44 45 64 65 76 77 7c 7d 7e 7f e4 e5 f6 f7 fc fd fe ff")),
}


def branches(instruction: bytes) -> bool:
    """Whether ``instruction``, which run-ahead may execute, is a branch or the no-operation form of one."""
    first = instruction[0]
    if first in _BRANCH_ONE_BYTE:
        return True
    if first in _BRANCH_FOUR_BITS:
        return instruction[1] & 15 in _BRANCH_FOUR_BITS[first]
    return first in _BRANCH_LAST_BYTE and instruction[5] in _BRANCH_LAST_BYTE[first]


def _instruction(fetch: Callable[[int, int], bytes], address: int) -> bytes:
    head = fetch(address, 2)
    return head + fetch(address + 2 & _MASK64, instruction_length(head[0]) - 2)


def _uses_access_registers(instruction: bytes) -> bool:
    first = instruction[0]
    if first == 0xB2:
        return instruction[1] in _ACCESS_TWO_BYTES
    return first in _ACCESS_ONE_BYTE or (first == 0xEB and instruction[5] in _ACCESS_ONE_BYTE)


def judge(fetch: Callable[[int, int], bytes], address: int, size: int) -> Verdict:
    """Judge the block of ``size`` bytes at ``address``: run-ahead must be able to execute each of its instructions.

    ``fetch`` reads guest code by logical address and raises ProgramInterruption if it cannot. Targets of EXECUTE
    RELATIVE LONG are judged as well. EXECUTE may change a target's second byte, so only targets whose opcode is not
    there are accepted.
    """
    code = fetch(address, size)
    at = 0
    verdict = Verdict.YES
    while at < size:
        length = instruction_length(code[at])
        instruction = code[at : at + length]
        if len(instruction) < length or not runs_ahead(instruction):
            return Verdict.NO
        if _in(_SIGNED, instruction) and not _code_is_dead(fetch, address + at + length):
            return Verdict.NO
        if _uses_access_registers(instruction):
            verdict = Verdict.ACCESS_REGISTERS
        if (instruction[0], instruction[1] & 15) == _EXRL:
            offset = 2 * int.from_bytes(instruction[2:], "big", signed=True)
            target = _instruction(fetch, address + at + offset & _MASK64)
            plain = target[0] in _ONE_BYTE or target[0] in _LAST_BYTE
            if not plain or not runs_ahead(target) or branches(target) or _in(_SIGNED, target):
                return Verdict.NO
            if _uses_access_registers(target):
                verdict = Verdict.ACCESS_REGISTERS
        at += length
    return verdict


def _code_is_dead(fetch: Callable[[int, int], bytes], address: int) -> bool:
    """Whether, from ``address`` on, the condition code is set before anything can depend on it; calls are followed."""
    for _ in range(_LOOK_FORWARD):
        instruction = _instruction(fetch, address & _MASK64)
        first, low = instruction[0], instruction[1] & 15
        if _in(_SETS_CODE, instruction) or classify(instruction) is Pattern.UVC:
            return True
        if first in (0xA7, 0xC0) and (low == 5 or instruction[1] == 0xF4):
            address += 2 * int.from_bytes(instruction[2:], "big", signed=True)
        elif _in(_KEEPS_CODE, instruction):
            address += len(instruction)
        else:
            return False
    return False


def always_leaves(instruction: bytes) -> bool:
    """Whether a translator certainly ends its block at this branch: one that may branch, and not to the next
    instruction.
    """
    first, second = instruction[0], instruction[1]
    low = second & 15
    if first in (0x05, 0x0D):
        return low != 0  # with register 0 they only link
    if first == 0x07:
        return second & 0xF0 != 0 and low != 0
    if first == 0x47:
        return second & 0xF0 != 0
    elsewhere = 2 * int.from_bytes(instruction[2 : 4 if first == 0xEC else None], "big", signed=True) != len(
        instruction
    )
    if first in (0xA7, 0xC0):
        return elsewhere and (low == 5 or (low == 4 and second & 0xF0 != 0))
    if first == 0xEC:
        if instruction[5] in (0x64, 0x65, 0x76, 0x77):
            return elsewhere and instruction[4] & 0xF0 != 0
        return elsewhere and instruction[5] in (0x7C, 0x7D, 0x7E, 0x7F) and low != 0
    return False


def first_block(fetch: Callable[[int, int], bytes], address: int) -> int:
    """Return the largest size in bytes of the block of code that begins at ``address``.

    It ends with a branch (but goes on after those that never branch), with the first instruction that may not run
    ahead, or with the last instruction that begins in its page.
    """
    size = 0
    while True:
        instruction = _instruction(fetch, address + size & _MASK64)
        size += len(instruction)
        if not runs_ahead(instruction) or always_leaves(instruction) or (address & 0xFFF) + size >= 0x1000:
            return size

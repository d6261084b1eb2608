"""Instruction lengths, operands and the search for trapped instructions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zseal.arch.instructions import Pattern, classify, find_patterns, instruction_length, storage_operand
from zseal.arch.psw import Psw
from zseal.engine.interface import TrapKind

UVC = bytes.fromhex("b9a40002")
STFLE = bytes.fromhex("b2b0f0a0")
LPSWE = bytes.fromhex("b2b21000")
DIAG_308 = bytes.fromhex("83020308")
DIAG_500 = bytes.fromhex("83240500")


@pytest.mark.parametrize(("first", "length"), [(0x07, 2), (0x41, 4), (0x83, 4), (0xB9, 4), (0xC0, 6), (0xEB, 6)])
def test_the_two_leftmost_bits_tell_the_length(first: int, length: int) -> None:
    assert instruction_length(first) == length


def test_all_five_patterns_are_found_where_they_are() -> None:
    code = b"\x07\x00" + UVC + STFLE + b"\x07\x07" + LPSWE + DIAG_308 + DIAG_500
    assert find_patterns(code) == [
        (2, Pattern.UVC),
        (6, Pattern.STFLE),
        (12, Pattern.LPSWE),
        (16, Pattern.DIAG_308),
        (20, Pattern.DIAG_500),
    ]
    assert find_patterns(code, [Pattern.UVC]) == [(2, Pattern.UVC)]


def test_odd_addresses_nonzero_m_fields_and_cut_instructions_do_not_match() -> None:
    assert find_patterns(b"\x00" + UVC + b"\x00") == []
    assert find_patterns(bytes.fromhex("b9a41002")) == []
    assert find_patterns(UVC[:2]) == []
    assert find_patterns(b"") == []
    assert classify(bytes.fromhex("b9a41002")) is None


@given(st.lists(st.sampled_from([UVC, STFLE, LPSWE, DIAG_308, DIAG_500, b"\x07\x07", b"\x83\x00", b"\xb9\xa4"])))
def test_the_search_agrees_with_classifying_every_halfword(pieces: list[bytes]) -> None:
    code = b"".join(pieces)
    expected = [(at, kind) for at in range(0, len(code) - 3, 2) if (kind := classify(code[at : at + 4])) is not None]
    assert find_patterns(code) == expected


def test_pattern_names_are_the_engines_trap_kinds() -> None:
    for pattern in Pattern:
        assert TrapKind(pattern.value)


def test_an_operand_address_is_base_plus_displacement_in_the_addressing_mode() -> None:
    registers = [0xDEAD] + [0] * 14 + [0xFFFFFFFFFFFFFF80]
    assert storage_operand(STFLE, registers.__getitem__, Psw(0x180000000, 0)) == 0x20
    assert storage_operand(bytes.fromhex("b2b00123"), registers.__getitem__, Psw(0x180000000, 0)) == 0x123
    assert storage_operand(bytes.fromhex("b2b0f010"), registers.__getitem__, Psw(0x80000000, 0)) == 0x7FFFFF90
    assert storage_operand(bytes.fromhex("b2b0f010"), registers.__getitem__, Psw(0, 0)) == 0xFFFF90

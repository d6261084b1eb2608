"""Which code may be run ahead: nothing privileged, nothing that looks outside registers and storage."""

from __future__ import annotations

import pytest

from zseal.engine.unicorn.runahead_code import Verdict, first_block, judge

BASE = 0x10000

FORBIDDEN = {
    "STNSM": "ac03f000",
    "STOSM": "ad03f000",
    "SSM": "8000f000",
    "LPSW": "8200f000",
    "DIAG": "83240500",
    "SVC": "0a05",
    "STCK": "b205f000",
    "STCKF": "b27c2000",
    "STPT": "b2092000",
    "LCTLG": "eb001000002f",
    "STCTG": "eb0010000025",
    "LPSWE": "b2b2f000",
    "STFLE": "b2b02000",
    "UVC": "b9a40002",
    "SAC": "b2190000",
    "EPSW": "b98d0012",
    "EX": "44102000",
    "MVCP": "da1420003000",
    "MVCOS": "c84020003000",
    "PC": "b2180000",
    "TABORT": "b2fc0000",
    "VL": "e71020000006",
    "LDGR": "b3c10001",
    "LE": "78102000",
    "LAE": "51102000",
    "LAEY": "e31020000075",
    "BSM": "0b12",
    "SAM31": "010d",
    "MVCLE": "a8240000",
    "LRA": "b1102000",
    "LRAG": "e31020000003",
    "STURA": "b2460012",
    "SSKE": "b22b0012",
    "TPROT": "e50110002000",
    "IPTE": "b2210012",
    "PTLB": "b20d0000",
    "SIGP": "ae120000",
    "SERVC": "b2200012",
    "ECAG": "eb120000004c",
    "ECTG": "c83110002000",
    "CSST": "c83210002000",
    "PLO": "ee1320004000",
    "SPM": "0410",
    "TRAP2": "01ff",
    "MC": "af011000",
    "MVCK": "d91420003000",
    "RNSBG that only tests": "ec0a9d34ee54",
    "CDSG of half a pair": "eba9ca20003e",
    "CDSY of half a pair": "eb9a10000031",
    "CDS of half a pair": "bb252000",
    "invalid": "0000",
}


def fetch(code: str, *, base: int = BASE) -> Verdict:
    data = bytes.fromhex(code)
    return judge(lambda address, length: data[address - base : address - base + length], base, len(data))


@pytest.mark.parametrize("name", FORBIDDEN)
def test_instructions_with_other_effects_are_refused_wherever_they_stand(name: str) -> None:
    code = FORBIDDEN[name]
    assert fetch(code) is Verdict.NO
    assert fetch("a73b0001" + code) is Verdict.NO
    assert fetch("b9040056" + code + "07fe") is Verdict.NO


def test_ordinary_kernel_code_is_taken() -> None:
    assert fetch("ebeff0700024a7fbffc0d71ff000f000a7191000e320f0180024a7390000b2220050eb110020000d07fe") is Verdict.YES
    assert fetch("a7000001c0e500000015ec120000007cc41800000008e3102000000407f0") is Verdict.YES


SIGNED = (
    "1a12",
    "1b12",
    "5a102000",
    "b9080012",
    "b9090012",
    "b9e83012",
    "e31020000008",
    "e31020000009",
    "c21900000001",
)


@pytest.mark.parametrize("code", SIGNED)
def test_signed_additions_are_taken_where_their_condition_code_does_not_matter(code: str) -> None:
    for sets in ("1200", "a71b0001", "95012000", "b9a40034", "e31020000002", "b9200012"):
        assert fetch(code + "b9040056" + sets + "07fe") is (Verdict.NO if sets == "b9a40034" else Verdict.YES)
    for looks in ("a7840004", "b2220010", "07fe", "47801000", "c00400000004", "b9980012", "ebf2100000f2", "44102000"):
        assert fetch(code + looks + "1200" + "07fe") is Verdict.NO


def test_a_condition_code_is_followed_through_jumps_and_calls() -> None:
    code = bytes.fromhex("e310b0100009" + "a7f40010") + bytes(28) + bytes.fromhex("e548f0a00000" + "c0e500000010")
    code += bytes(26) + bytes.fromhex("eb6ff0300024" + "b9a40034")

    def read(address: int, length: int) -> bytes:
        return code[address - BASE : address - BASE + length]

    assert judge(read, BASE, 10) is Verdict.YES
    assert judge(lambda at, length: read(at, length).replace(b"\xb9\xa4", b"\xb2\x22"), BASE, 10) is Verdict.NO


def test_jumping_in_circles_tells_nothing_of_a_condition_code() -> None:
    assert fetch("1a12" + "a7f40000") is Verdict.NO


def test_code_that_moves_access_registers_is_recognised() -> None:
    for code in ("b24f0014", "b24e0051", "b24d0012", "9a001000", "9b001000", "eb001000009a", "eb001000009b"):
        assert fetch("a73b0001" + code) is Verdict.ACCESS_REGISTERS


@pytest.mark.parametrize(
    ("target", "verdict"),
    [
        ("d20020003000", Verdict.YES),  # MVC, what compilers use EXRL for
        ("e31020000004", Verdict.YES),  # LG
        ("9b001000", Verdict.ACCESS_REGISTERS),  # STAM
        ("a73b0001", Verdict.NO),  # AGHI: EXRL may change its opcode, which reaches into the second byte
        ("b2b2f000", Verdict.NO),
        ("0a05", Verdict.NO),
        ("07fe", Verdict.NO),  # a branch
        ("c60000000000", Verdict.NO),  # EXRL of an EXRL
    ],
)
def test_the_target_of_exrl_counts(target: str, verdict: Verdict) -> None:
    data = bytes.fromhex("c61000000020") + bytes(58) + bytes.fromhex(target)
    assert judge(lambda at, length: data[at - BASE : at - BASE + length], BASE, 6) is verdict


def test_an_instruction_cut_off_at_the_end_is_refused() -> None:
    assert fetch("b904005607fe"[:6]) is Verdict.NO


def block_of(code: str) -> int:
    data = bytes.fromhex(code) + bytes.fromhex("1812") * 0x1000
    return first_block(lambda address, length: data[address : address + length], 0)


def test_the_first_block_ends_behind_its_first_branch() -> None:
    assert block_of("b9040056" + "a7f40000" + "07fe") == 8
    for branch in ("ec120000007c", "ec1200008076", "0de1", "05e1", "07fe", "47f0e000", "a7e50000", "c0e500000000"):
        assert block_of("b9040056" + branch) == 4 + len(branch) // 2


def test_the_first_block_goes_on_behind_what_never_branches() -> None:
    for nothing in (
        "a7040010",  # BRC with an empty mask: Linux's static keys
        "c00400000010",
        "c0f400000003",  # to what follows
        "a7f40002",
        "a7150002",
        "0700",
        "07f0",  # serialization
        "0de0",  # BASR that only links
        "ec100010007c",  # a comparison and branch with an empty mask
        "ec1200100076",
    ):
        assert block_of(nothing + "07fe") == len(nothing) // 2 + 2, nothing


def test_the_first_block_ends_with_its_page_and_with_what_may_not_run() -> None:
    assert block_of("b9040056" + "ac03f000") == 8
    assert block_of("b9040056" * 1024) == 0x1000
    assert block_of("b9040056" * 1023 + "1812" + "e32010000004") == 0x1004

"""The parts of bootloaders and test guest that need no s390x CPU, against the same rules in Python."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.native.building import HARNESS, NATIVE, build, examples
from tests.unit.native.sources import ANY, causes, defined

TEXT_SIZE = defined("common/text.h")["TEXT_SIZE"]
WORD = 1 << 64
SOURCES = ("common/text.c", "testguest/parse.c", "bootloaders/stage3a/failure.c")
PLACES = {
    "pool": 0x400000,
    "ramdisk": 0x2000000,
    "marker": 0x300000,
    "block": 0x301000,
    "uvcb": 0x302000,
    "end": 0x8000000,
}
COMMANDS = {2: "KVM_PV_SET_SEC_PARMS", 3: "KVM_PV_UNPACK", 4: "KVM_PV_VERIFY"}
CAUSES = causes()


class Text(ctypes.Structure):
    """``struct text`` of native/common/text.h."""

    _fields_ = (("length", ctypes.c_uint), ("bytes", ctypes.c_char * TEXT_SIZE))

    @property
    def value(self) -> str:
        return ctypes.string_at(ctypes.addressof(self) + Text.bytes.offset, self.length).decode("latin-1")


class GuestCode:
    """The compiled functions, and the lines that they write to the console."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self.lines: list[str] = []
        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint)
        self._on_line = kind(lambda line, length: self.lines.append(ctypes.string_at(line, length).decode()))
        pointer = ctypes.c_void_p.in_dll(self._library, "on_line")
        pointer.value = ctypes.cast(self._on_line, ctypes.c_void_p).value

    def parse(self, function: str, text: bytes) -> tuple[int, bytes]:
        """Return the value that ``function`` reads from ``text``, and what is left of it."""
        buffer = ctypes.create_string_buffer(text)
        cursor = ctypes.c_void_p(ctypes.addressof(buffer))
        found = self._library[function]
        found.restype = ctypes.c_uint64
        value: int = found(ctypes.byref(cursor))
        return value, text[(cursor.value or 0) - ctypes.addressof(buffer) :]

    def append(self, text: Text, function: str, *arguments: object) -> None:
        self._library[function](ctypes.byref(text), *arguments)

    def report_failure(self, response: int) -> list[str]:
        self.lines.clear()
        self._library.report_failure(ctypes.c_uint64(response))
        return list(self.lines)


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestCode]:
    sources = [HARNESS / "guest.c", *(NATIVE / name for name in SOURCES)]
    folders = (HARNESS, NATIVE / "common", NATIVE / "testguest", NATIVE / "bootloaders" / "stage3a")
    path = build(tmp_path_factory.mktemp("guest"), "guest", sources, options=[f"-I{folder}" for folder in folders])
    yield GuestCode(str(path))


# --- numbers and addresses in words ---


def number(text: str, pattern: str, base: int) -> tuple[int, str]:
    found = re.match(pattern, text, re.ASCII)
    assert found is not None
    return int(found[1] or "0", base) % WORD, text[found.end() :]


def hexadecimal(text: str) -> tuple[int, str]:
    return number(text, r"(?:0x)?([0-9a-fA-F]*)", 16)


def decimal(text: str) -> tuple[int, str]:
    return number(text, r"([0-9]*)", 10)


def address(text: str) -> tuple[int, str]:
    name = next((name for name in PLACES if text.startswith(name)), None)
    base = 0 if name is None else PLACES[name]
    if name is not None:
        text = text.lstrip("abcdefghijklmnopqrstuvwxyz")
    sign = -1 if text.startswith("-") else 1
    value, rest = hexadecimal(text[1:] if text[:1] in ("-", "+") else text)
    return (base + sign * value) % WORD, rest


def comma(text: str) -> tuple[int, str]:
    return (1, text[1:]) if text.startswith(",") else (0, text)


RULES: dict[str, Callable[[str], tuple[int, str]]] = {
    "parse_hex": hexadecimal,
    "parse_decimal": decimal,
    "parse_address": address,
    "parse_comma": comma,
}
words = st.lists(
    st.one_of(
        st.sampled_from(
            [*PLACES, "poolx", "en", "0x", "0X", "+", "-", ",", "ffffffffffffffff", "99999999999999999999"]
        ),
        st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=6),
        st.integers(0, WORD * 16).map(lambda value: f"{value:x}"),
    ),
    max_size=5,
).map("".join)


@pytest.mark.parametrize("function", RULES)
@given(text=words)
@settings(max_examples=examples(200))
@example(text="")
@example(text="end-0x1000,8")
def test_words_are_read_as_documented(guest: GuestCode, function: str, text: str) -> None:
    value, rest = RULES[function](text)
    assert guest.parse(function, text.encode()) == (value, rest.encode())


# --- lines ---

pieces = st.one_of(
    st.tuples(st.just("string"), st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)),
    st.tuples(st.just("hex"), st.integers(0, WORD - 1), st.integers(0, 16)),
    st.tuples(st.just("decimal"), st.integers(0, WORD - 1)),
)


@given(st.lists(pieces, max_size=12))
@settings(max_examples=examples(100))
def test_a_line_takes_what_fits_and_drops_the_rest(
    guest: GuestCode, parts: list[tuple[str, *tuple[int | str, ...]]]
) -> None:
    text, expected = Text(), ""
    for part in parts:
        match part:
            case ("string", str(value)):
                guest.append(text, "text_string", value.encode())
                expected += value
            case ("hex", int(value), int(digits)):
                guest.append(text, "text_hex", ctypes.c_uint64(value), ctypes.c_uint(digits))
                expected += f"{value:0{max(1, digits)}x}"
            case ("decimal", int(value)):
                guest.append(text, "text_decimal", ctypes.c_uint64(value))
                expected += str(value)
    assert text.value == expected[:TEXT_SIZE]


# --- why protected mode could not be entered ---


def expected_lines(response: int) -> list[str]:
    """Return what stage3a has to write for a response of DIAGNOSE 0x308 subcode 10."""
    command, rrc, rc, code = (response >> shift & 0xFFFF for shift in (48, 32, 16, 0))
    lines = ["The hypervisor has no configuration for a protected guest"] if code == 0x0902 else []
    if not response >> 16:
        return [*lines, f"Protected boot has failed: {code:#x}"]
    cause = next((text for known, reason, text in CAUSES if known == rc and reason in (rrc, ANY)), None)
    lines += [] if cause is None else [cause]
    name = COMMANDS.get(command, "KVM_PV_ENABLE")
    return [*lines, f"Protected boot failed: {code:#x}, {name} - RC: {rc:#x}, RRC:{rrc:#x}"]


halves = st.one_of(st.integers(0, 0xFFFF), st.sampled_from(sorted({each for cause in CAUSES for each in cause[:2]})))


@given(command=st.integers(0, 6), rrc=halves, rc=halves, code=st.one_of(halves, st.just(0x0902)))
@settings(max_examples=examples(300))
@example(command=0, rrc=0, rc=0, code=0x0902)
@example(command=0xFFFF, rrc=0xFFFF, rc=0xFFFF, code=0xFFFF)
def test_each_response_is_reported(guest: GuestCode, command: int, rrc: int, rc: int, code: int) -> None:
    response = command << 48 | rrc << 32 | rc << 16 | code
    assert guest.report_failure(response) == expected_lines(response)

"""Bootloaders executed by Unicorn, with the machine around them (SCLP, DIAGNOSE, facilities) played in Python.

So their every path can be taken, real hardware's answers included, in milliseconds and without a hypervisor.
"""

from __future__ import annotations

import importlib
import re
import struct
from collections.abc import Callable
from typing import Protocol

import pytest

# Imported by name: the package has no type annotations, its part of the contract is CpuEmulator below.
unicorn = importlib.import_module("unicorn")
unicorn_const = importlib.import_module("unicorn.unicorn_const")
s390x_const = importlib.import_module("unicorn.s390x_const")

MEMORY_SIZE = 4 << 20
JUNK = 0xA5
PLAIN_MASK = 0x0000000180000000
WAIT_BIT = 0x0002000000000000
EXTERNAL_BIT = 0x0100000000000000
TIMEOUT_MICROSECONDS = 10_000_000
# STFL, STFLE, SERVC, LPSWE, SIGP, DIAGNOSE 308; a match in data does no harm
WATCHED = re.compile(rb"\xb2[\xb1\xb0\x20\xb2]|\xae|\x83.\x03\x08", re.DOTALL)

LC_EXTERNAL_CODE = 0x86
LC_PROGRAM_CODE = 0x8E
LC_STFL = 0xC8
LC_PROGRAM_OLD_PSW = 0x150
LC_EXTERNAL_NEW_PSW = 0x1B0
LC_PROGRAM_NEW_PSW = 0x1D0


class CpuEmulator(Protocol):
    """The methods of ``unicorn.Uc`` in use here."""

    def mem_map(self, address: int, size: int) -> None: ...
    def mem_write(self, address: int, data: bytes) -> None: ...
    def mem_read(self, address: int, size: int) -> bytearray: ...
    def reg_read(self, register: int) -> int: ...
    def reg_write(self, register: int, value: int) -> None: ...
    def hook_add(
        self, kind: int, callback: Callable[[object, int, int, object], None], *, begin: int, end: int
    ) -> None: ...
    def emu_start(self, begin: int, until: int, *, timeout: int) -> None: ...
    def emu_stop(self) -> None: ...


class ProgramCheckError(Exception):
    """An answer to DIAGNOSE that is an interruption instead."""

    def __init__(self, code: int) -> None:
        super().__init__(f"program interruption {code:#06x}")
        self.code = code


class GuestMachine:
    """One CPU, 4 MiB of storage full of junk, an SCLP console, and whatever ``diag308`` answers."""

    def __init__(self) -> None:
        self.facilities: set[int] = {161}
        self.diag308: Callable[[int, int], int] = lambda subcode, address: 1
        self.diag_calls: list[tuple[int, int]] = []
        self.sclp_busy = 0  # how often a service call finds the SCLP busy
        self.sclp_spurious = 0  # how many service signals come before the one that ends a command
        self.sclp_there = True
        self.ascii = ""
        self.line_mode: list[str] = []
        self.send_mask = 0
        self.service_calls = 0
        self.final_psw: tuple[int, int] | None = None
        self.fault: BaseException | None = None
        self._signal_pending = False
        self._response: tuple[int, int] | None = None
        self._uc: CpuEmulator = unicorn.Uc(unicorn_const.UC_ARCH_S390X, unicorn_const.UC_MODE_BIG_ENDIAN)
        self._uc.mem_map(0, MEMORY_SIZE)
        self._uc.mem_write(0, bytes([JUNK]) * MEMORY_SIZE)

    @staticmethod
    def program_check(code: int) -> ProgramCheckError:
        """What ``diag308`` raises to end in a program interruption with ``code``."""
        return ProgramCheckError(code)

    def write(self, address: int, data: bytes) -> None:
        self._uc.mem_write(address, data)

    def read(self, address: int, length: int) -> bytes:
        return bytes(self._uc.mem_read(address, length))

    def read_number(self, address: int, length: int) -> int:
        return int.from_bytes(self.read(address, length))

    def load_code(self, address: int, code: bytes) -> None:
        """Put ``code`` at ``address`` and watch its instructions that need the machine around the CPU."""
        self.write(address, code)
        for offset in range(0, len(code) - 3, 2):
            if WATCHED.match(code, offset):
                site = address + offset
                self._uc.hook_add(unicorn_const.UC_HOOK_CODE, self._step, begin=site, end=site)

    def run(self, entry: int, mask: int = PLAIN_MASK) -> None:
        """Execute from ``entry`` until a PSW is loaded that no interruption of the console explains."""
        for number in range(16):
            self._set_gr(number, 0x5A5A5A5A5A5A5A5A)  # nothing may be taken for granted
        self._uc.reg_write(s390x_const.UC_S390X_REG_PSWM, mask)
        while True:
            try:
                self._uc.emu_start(entry, 0xFFFFFFFE, timeout=TIMEOUT_MICROSECONDS)
                break
            except unicorn.UcError:  # an access exception, most likely; the bootloaders do not look at the code
                entry = self._interrupt(0x0005, self._uc.reg_read(s390x_const.UC_S390X_REG_PC))
        if self.fault is not None:
            raise self.fault
        assert self.final_psw is not None, "it ran without end"

    @property
    def stop_code(self) -> int:
        """The address of the disabled-wait PSW it ended with."""
        assert self.final_psw is not None
        mask, address = self.final_psw
        assert mask & WAIT_BIT, f"ended with PSW {mask:016x} {address:016x}, which is no wait"
        assert not mask & EXTERNAL_BIT, "ended in an enabled wait"
        return address

    @property
    def lines(self) -> list[str]:
        """The console's lines; both consoles must have got the same."""
        assert self.ascii == "" or self.ascii.endswith("\r\n")
        lines = self.ascii.split("\r\n")[:-1]
        assert lines == self.line_mode
        return lines

    def _gr(self, number: int) -> int:
        return self._uc.reg_read(s390x_const.UC_S390X_REG_R0 + number)

    def _set_gr(self, number: int, value: int) -> None:
        self._uc.reg_write(s390x_const.UC_S390X_REG_R0 + number, value)

    def _operand(self, base_displacement: int) -> int:
        base = base_displacement >> 12
        return (self._gr(base) if base else 0) + (base_displacement & 0xFFF)

    def _continue_at(self, address: int) -> None:
        self._uc.reg_write(s390x_const.UC_S390X_REG_PC, address)

    def _set_cc(self, cc: int) -> None:
        mask = self._uc.reg_read(s390x_const.UC_S390X_REG_PSWM) & ~(3 << 44)
        self._uc.reg_write(s390x_const.UC_S390X_REG_PSWM, mask | cc << 44)

    def _step(self, _uc: object, address: int, _size: int, _data: object) -> None:
        try:
            self._execute(address, self.read(address, 4))
        except ProgramCheckError as check:
            self._continue_at(self._interrupt(check.code, address + 4))
        except BaseException as error:  # an exception can't cross the emulator
            self.fault = error
            self._uc.emu_stop()

    def _interrupt(self, code: int, address: int) -> int:
        """Store a program interruption's code and old PSW; return where it goes."""
        self.write(LC_PROGRAM_CODE, struct.pack(">H", code))
        self.write(LC_PROGRAM_OLD_PSW, struct.pack(">QQ", PLAIN_MASK, address))
        mask, handler = struct.unpack(">QQ", self.read(LC_PROGRAM_NEW_PSW, 16))
        assert mask == PLAIN_MASK
        return int(handler)

    def _execute(self, address: int, code: bytes) -> None:
        """Do what the emulator can't; everything else is left to it."""
        match code[:2]:
            case b"\xb2\xb1":  # STFL
                self.write(LC_STFL, self._facility_list(4))
            case b"\xb2\xb0":  # STFLE
                doublewords = (self._gr(0) & 0xFF) + 1
                self.write(self._operand(int.from_bytes(code[2:])), self._facility_list(8 * doublewords))
                self._set_gr(0, 31)
                self._set_cc(0)
            case b"\xb2\x20":  # SERVC
                self._service_call(self._gr(code[3] >> 4) & 0xFFFFFFFF, self._gr(code[3] & 15))
            case b"\xb2\xb2":  # LPSWE
                self._load_psw(self._operand(int.from_bytes(code[2:])))
                return
            case _ if code[0] == 0xAE:  # SIGP: only to set the architecture
                assert self._operand(int.from_bytes(code[2:])) == 0x12
                self._set_cc(0)
            case _ if code[0] == 0x83 and code[2:] == b"\x03\x08":
                even = code[1] >> 4
                assert even % 2 == 0
                call = (self._gr(code[1] & 15), self._gr(even))
                self.diag_calls.append(call)
                self._set_gr(even + 1, self.diag308(*call))
            case _:
                return
        self._continue_at(address + 4)

    def _facility_list(self, length: int) -> bytes:
        stored = bytearray(length)
        for bit in {7, *self.facilities}:
            if bit < 8 * length:
                stored[bit // 8] |= 0x80 >> bit % 8
        return bytes(stored)

    def _load_psw(self, location: int) -> None:
        mask, address = struct.unpack(">QQ", self.read(location, 16))
        if not (mask & WAIT_BIT and mask & EXTERNAL_BIT):
            self.final_psw = (mask, address)
            self._uc.emu_stop()
            return
        assert mask == PLAIN_MASK | WAIT_BIT | EXTERNAL_BIT | mask & 3 << 44, "open for I/O or machine checks"
        assert self._signal_pending, "waits for a signal that never comes"
        if self.sclp_spurious:
            self.sclp_spurious -= 1
        else:
            self._signal_pending = False
            if self._response:
                sccb, response = self._response
                self.write(sccb + 6, struct.pack(">H", response))
                self._response = None
        self.write(LC_EXTERNAL_CODE, struct.pack(">H", 0x2401))
        new_mask, handler = struct.unpack(">QQ", self.read(LC_EXTERNAL_NEW_PSW, 16))
        assert new_mask & ~(3 << 44) == PLAIN_MASK
        self._continue_at(handler)

    def _service_call(self, command: int, sccb: int) -> None:
        self.service_calls += 1
        if not self.sclp_there:
            self._set_cc(3)
            return
        if self.sclp_busy:
            self.sclp_busy -= 1
            self._signal_pending = True
            self._set_cc(2)
            return
        assert sccb % 4096 == 0 and 0 < sccb < 1 << 31
        length = self.read_number(sccb, 2)
        assert self.read(sccb + 2, 6) == bytes(6)
        assert self.read(sccb + length, 4096 - length) == bytes(4096 - length), "the page was not zeroed"
        block = self.read(sccb, length)
        match command:
            case 0x00780005:
                assert length == 28 and block[8:12] == b"\0\0\0\4" and block[12:16] == bytes(4)
                self.send_mask = int.from_bytes(block[16:20])
            case 0x00760005:
                self._event(block)
            case _:
                raise AssertionError(f"unexpected service call {command:#x}")
        self._response = (sccb, 0x0020)
        self._signal_pending = True
        self._set_cc(0)

    def _event(self, block: bytes) -> None:
        length, kind = struct.unpack(">HB", block[8:11])
        assert length == len(block) - 8 and block[11:14] == bytes(3)
        if kind == 0x1A:
            assert self.send_mask & 0x40
            self.ascii += block[14:].decode("ascii")
            return
        assert kind == 0x02 and self.send_mask & 0x40000000
        mdb_length, mdb_type, tag, revision = struct.unpack(">HHII", block[14:26])
        assert (mdb_length, mdb_type, tag, revision) == (length - 6, 1, 0xD4C4C240, 1)
        assert block[26:82] == struct.pack(">HH", 56, 1) + bytes(52)
        text_length, text_type, flags, zero = struct.unpack(">HHHI", block[82:92])
        assert (text_length, text_type, flags, zero) == (len(block) - 82, 4, 0x1000, 0)
        self.line_mode.append(block[92:].decode("cp037"))


@pytest.fixture
def machine() -> GuestMachine:
    return GuestMachine()

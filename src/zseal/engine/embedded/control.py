"""The interpreter: privileged instructions, and those that show the state of the machine.

Rules: z/Architecture Principles of Operation, chapter 10 ("Control Instructions"). There are no storage keys (all are
zero), no channels (I/O instructions find no subchannel), and every PTLB, IPTE and the like purges the whole TLB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from zseal.arch import decode
from zseal.arch.dat import ADDRESS_MASK, PREFIX_AREA_SIZE, PREFIX_MASK, CpuMemory, real_to_absolute
from zseal.arch.decode import Instruction
from zseal.arch.facilities import facility_list, store_facility_list
from zseal.arch.interruption import ProgramCode, ProgramInterruption
from zseal.arch.psw import ADDRESS_SPACE_SHIFT, DAT, PSW_SIZE, AddressSpace, Psw
from zseal.engine.embedded import clock
from zseal.engine.embedded.cpu import EmbeddedCpu
from zseal.engine.embedded.operands import OwnMemory
from zseal.engine.unicorn.runahead_code import breaks_translator

FACILITIES = facility_list((0, 1, 2, 3, 7, 8, 18, 19, 20, 21, 25, 34, 35, 45, 49, 53, 78, 130))
"""The facilities of this engine; bits of the Principles of Operation, "Facility Indications"."""
_CPU_ID = 0x0000000085618000  # version, identification, machine type 8561, format
_STFL = 0xC8  # lowcore
_SYSTEM_MASK = 0xFF << 56
_NOT_OPERATIONAL = 3


class Hardware(Protocol):
    """The parts of the machine that instructions reach."""

    def servc(self, word: int, block: int, prefix: int) -> int:
        """SERVICE CALL; returns the condition code."""

    def sigp(self, cpu: EmbeddedCpu, address: int, order: int, parameter: int) -> tuple[int, int | None]:
        """SIGNAL PROCESSOR; returns condition code and status."""

    def loaded(self, cpu: EmbeddedCpu, psw: Psw) -> None:
        """LOAD PSW has loaded ``psw``."""


Handler = Callable[[EmbeddedCpu, Instruction, Hardware], None]


class _PswLoaded(Exception):  # noqa: N818 - it ends an instruction and is not an error
    """The instruction has set the whole PSW, so there is nothing to advance."""


def interpret(cpu: EmbeddedCpu, instruction: Instruction, hardware: Hardware) -> bool:
    """Carry out ``instruction`` and advance the PSW; returns False if this module does not implement it."""
    handler = _TABLE.get(instruction.opcode)
    if handler is None:
        return False
    try:
        handler(cpu, instruction, hardware)
    except _PswLoaded:
        return True
    cpu.psw = cpu.psw.advanced(instruction.length)
    return True


def sensitive(data: bytes) -> bool:
    """Whether the unprivileged ``data`` must not be executed by Unicorn: it would show Unicorn's state, or Unicorn
    cannot execute it.
    """
    return decode.opcode(data) in _SENSITIVE or breaks_translator(data)


_SENSITIVE = frozenset(
    (
        *(0xB2B0, 0xB205, 0xB27C, 0xB278, 0xB98D),  # STFLE, STCK, STCKF, STCKE, EPSW
        *(0xE501, 0xB224, 0xB20B, 0xB219, 0xB20A),  # TPROT, IAC, IPK, SAC, SPKA
        *(0xD9, 0xDA, 0xDB, 0xC800, 0xE50E, 0xE50F),  # MVCK, MVCP, MVCS, MVCOS, MVCSK, MVCDK: other spaces and keys
        *(0xB218, 0x0101, 0xB240, 0xB241, 0x0104, 0xB98E),  # PC, PR, BAKR, BSG, PTFF, IDTE
        *(0xB2F8, 0xB2FC, 0xB2EC, 0xE560, 0xE561),  # transactions
        *(0xB91E, 0xB928, *range(0xB92A, 0xB930), 0xB93A, 0xB93C, 0xB93E, 0xB93F),  # message-security assist
        *(0xEB4C, 0xC801),  # ECAG, ECTG
    )
)


# --- PSW ---


def _load_psw(cpu: EmbeddedCpu, psw: Psw, hardware: Hardware) -> None:
    if not psw.valid:
        # An early specification exception: the new PSW is in place when it is recognised.
        cpu.psw = psw
        cpu.interrupt(ProgramInterruption(ProgramCode.SPECIFICATION), 0)
        raise _PswLoaded
    cpu.psw = psw
    cpu.forget_translations()
    hardware.loaded(cpu, psw)
    raise _PswLoaded


def _lpswe(cpu: EmbeddedCpu, ins: Instruction, hardware: Hardware) -> None:
    address = _doubleword(cpu, ins)
    _load_psw(cpu, Psw.unpack(_operands(cpu, ins).read(address, PSW_SIZE)), hardware)


def _lpsw(cpu: EmbeddedCpu, ins: Instruction, hardware: Hardware) -> None:
    address = _doubleword(cpu, ins)
    value = int.from_bytes(_operands(cpu, ins).read(address, 8), "big")
    if not value >> 51 & 1:
        raise ProgramInterruption(ProgramCode.SPECIFICATION)
    _load_psw(cpu, Psw.from_short(value), hardware)


def _set_system_mask(cpu: EmbeddedCpu, value: int) -> None:
    psw = cpu.psw
    new = Psw(psw.mask & ~_SYSTEM_MASK | value << 56, psw.address)
    if not new.valid:
        raise ProgramInterruption(ProgramCode.SPECIFICATION)
    cpu.psw = new
    if (psw.mask ^ new.mask) & DAT:
        cpu.forget_translations()


def _ssm(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    address = ins.operand(cpu.gr, cpu.psw)
    _set_system_mask(cpu, _operands(cpu, ins).read(address, 1)[0])


def _stnsm(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    mask = cpu.psw.mask >> 56
    _operands(cpu, ins).write(ins.operand(cpu.gr, cpu.psw), bytes([mask]))
    _set_system_mask(cpu, mask & ins.data[1])


def _stosm(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    mask = cpu.psw.mask >> 56
    _operands(cpu, ins).write(ins.operand(cpu.gr, cpu.psw), bytes([mask]))
    _set_system_mask(cpu, mask | ins.data[1])


def _epsw(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    mask = cpu.psw.mask
    _set_low(cpu, ins.rre1, mask >> 32)
    if ins.rre2:
        _set_low(cpu, ins.rre2, mask & 0xFFFFFFFF)


def _set_address_space(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    code = ins.operand(cpu.gr, cpu.psw) >> 8 & 15
    space = {0: AddressSpace.PRIMARY, 3: AddressSpace.HOME}.get(code)
    psw = cpu.psw
    if not psw.dat:
        raise ProgramInterruption(ProgramCode.SPECIAL_OPERATION)
    if psw.problem_state and space is AddressSpace.HOME:
        raise ProgramInterruption(ProgramCode.PRIVILEGED_OPERATION)
    if space is None:
        if code > 3:
            raise ProgramInterruption(ProgramCode.SPECIFICATION)
        space = AddressSpace(code ^ 3 if code in (1, 2) else code)  # secondary 1 -> 2, access register 2 -> 1
    cpu.psw = Psw(psw.mask & ~(3 << ADDRESS_SPACE_SHIFT) | int(space) << ADDRESS_SPACE_SHIFT, psw.address)
    cpu.forget_translations()


def _iac(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    psw = cpu.psw
    if not psw.dat:
        raise ProgramInterruption(ProgramCode.SPECIAL_OPERATION)
    code = {0: 0, 2: 1, 1: 2, 3: 3}[int(psw.address_space)]
    cpu.set_gr(ins.rre1, cpu.gr(ins.rre1) & ~0xFF00 | code << 8)
    cpu.set_condition_code(code)


def _spka(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    key = ins.operand(cpu.gr, cpu.psw) >> 4 & 15
    psw = cpu.psw
    if psw.problem_state and not cpu.cr(3) >> (31 - key) & 1:
        raise ProgramInterruption(ProgramCode.PRIVILEGED_OPERATION)
    cpu.psw = Psw(psw.mask & ~(15 << 52) | key << 52, psw.address)


def _ipk(cpu: EmbeddedCpu, _ins: Instruction, _: Hardware) -> None:
    cpu.set_gr(2, cpu.gr(2) & ~0xFF | (cpu.psw.mask >> 52 & 15) << 4)


# --- control registers, prefix, identity ---


def _registers(ins: Instruction) -> list[int]:
    return [(ins.r1 + step) & 15 for step in range((ins.r3 - ins.r1 & 15) + 1)]


def _lctlg(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    numbers = _registers(ins)
    data = _operands(cpu, ins).read(_doubleword(cpu, ins), 8 * len(numbers))
    for at, number in enumerate(numbers):
        cpu.set_cr(number, int.from_bytes(data[8 * at : 8 * at + 8], "big"))


def _stctg(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    data = b"".join(cpu.cr(number).to_bytes(8, "big") for number in _registers(ins))
    _operands(cpu, ins).write(_doubleword(cpu, ins), data)


def _lctl(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    numbers = _registers(ins)
    data = _operands(cpu, ins).read(_aligned(cpu, ins, 4), 4 * len(numbers))
    for at, number in enumerate(numbers):
        low = int.from_bytes(data[4 * at : 4 * at + 4], "big")
        cpu.set_cr(number, cpu.cr(number) & ~0xFFFFFFFF | low)


def _stctl(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    data = b"".join((cpu.cr(number) & 0xFFFFFFFF).to_bytes(4, "big") for number in _registers(ins))
    _operands(cpu, ins).write(_aligned(cpu, ins, 4), data)


def _spx(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    operands = _operands(cpu, ins)
    prefix = int.from_bytes(operands.read(_aligned(cpu, ins, 4), 4), "big") & PREFIX_MASK
    if not cpu.exists(prefix + PREFIX_AREA_SIZE - 1):
        raise ProgramInterruption(ProgramCode.ADDRESSING, prefix)
    cpu.prefix = prefix


def _stpx(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    _operands(cpu, ins).write(_aligned(cpu, ins, 4), cpu.prefix.to_bytes(4, "big"))


def _stap(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    _operands(cpu, ins).write(_aligned(cpu, ins, 2), cpu.number.to_bytes(2, "big"))


def _stidp(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    _operands(cpu, ins).write(_doubleword(cpu, ins), _CPU_ID.to_bytes(8, "big"))


def _stsi(cpu: EmbeddedCpu, _ins: Instruction, _: Hardware) -> None:
    if cpu.gr(0) >> 28 & 15:
        cpu.set_condition_code(_NOT_OPERATIONAL)  # this engine describes no level
        return
    _set_low(cpu, 0, 3 << 28)
    cpu.set_condition_code(0)


def _stfle(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    register, cc = store_facility_list(_operands(cpu, ins), _doubleword(cpu, ins), cpu.gr(0), FACILITIES)
    cpu.set_gr(0, register)
    cpu.set_condition_code(cc)


def _stfl(cpu: EmbeddedCpu, _ins: Instruction, _: Hardware) -> None:
    cpu.set_lowcore(_STFL, FACILITIES[:4])


# --- clocks ---


def _store_clock(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    _operands(cpu, ins).write(ins.operand(cpu.gr, cpu.psw), clock.time_of_day().to_bytes(8, "big"))
    cpu.set_condition_code(0)


def _store_clock_extended(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    data = b"\0" + clock.time_of_day().to_bytes(8, "big") + bytes(7)
    _operands(cpu, ins).write(ins.operand(cpu.gr, cpu.psw), data)
    cpu.set_condition_code(0)


def _sckc(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    cpu.clock_comparator = int.from_bytes(_operands(cpu, ins).read(_doubleword(cpu, ins), 8), "big")


def _stckc(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    _operands(cpu, ins).write(_doubleword(cpu, ins), cpu.clock_comparator.to_bytes(8, "big"))


def _spt(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    cpu.timer.set(int.from_bytes(_operands(cpu, ins).read(_doubleword(cpu, ins), 8), "big"))


def _stpt(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    _operands(cpu, ins).write(_doubleword(cpu, ins), cpu.timer.get().to_bytes(8, "big"))


# --- storage ---


def _purge(cpu: EmbeddedCpu, _ins: Instruction, _: Hardware) -> None:
    cpu.forget_translations()


def _ipte(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    origin, page = cpu.gr(ins.rre1) & ~0x7FF, cpu.gr(ins.rre2) >> 12 & 0xFF
    at = real_to_absolute(origin + 8 * page & ADDRESS_MASK, cpu.prefix)
    entry = int.from_bytes(cpu.read_absolute(at, 8), "big")
    cpu.write_absolute(at, (entry | 0x400).to_bytes(8, "big"))
    cpu.forget_translations()


def _load_real(cpu: EmbeddedCpu, ins: Instruction, *, wide: bool) -> None:
    """LRA, LRAY, LRAG: cc 0 with the real address, 3 with the exception code if there is none."""
    address = ins.operand(cpu.gr, cpu.psw, index=ins.r3)
    try:
        view = CpuMemory(cpu, cpu.storage, space=AddressSpace.PRIMARY if not cpu.psw.dat else None)
        real = real_to_absolute(view.page(address) | address & 0xFFF, cpu.prefix) if cpu.psw.dat else address
    except ProgramInterruption as error:
        _set_low(cpu, ins.r1, 0x80000000 | int(error.code))
        cpu.set_condition_code(3)
        return
    if wide:
        cpu.set_gr(ins.r1, real)
    else:
        _set_low(cpu, ins.r1, real)
    cpu.set_condition_code(0)


def _lra(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    _load_real(cpu, ins, wide=bool(cpu.psw.mask >> 32 & 1))


def _lrag(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    _load_real(cpu, ins, wide=True)


def _real(cpu: EmbeddedCpu, ins: Instruction, size: int) -> int:
    address = cpu.gr(ins.rre2) & cpu.psw.address_mask
    if address % size:
        raise ProgramInterruption(ProgramCode.SPECIFICATION)
    return real_to_absolute(address, cpu.prefix)


def _lura(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    _set_low(cpu, ins.rre1, int.from_bytes(cpu.read_absolute(_real(cpu, ins, 4), 4), "big"))


def _lurag(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    cpu.set_gr(ins.rre1, int.from_bytes(cpu.read_absolute(_real(cpu, ins, 8), 8), "big"))


def _stura(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    cpu.write_absolute(_real(cpu, ins, 4), (cpu.gr(ins.rre1) & 0xFFFFFFFF).to_bytes(4, "big"))
    cpu.forget_code()


def _sturg(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    cpu.write_absolute(_real(cpu, ins, 8), cpu.gr(ins.rre1).to_bytes(8, "big"))
    cpu.forget_code()


def _test_protection(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    address = ins.operand(cpu.gr, cpu.psw)
    operands = _operands(cpu, ins)
    for write, cc in ((True, 0), (False, 1)):
        try:
            operands.check(address, 1, write=write)
        except ProgramInterruption as error:
            if error.code is ProgramCode.PROTECTION:
                continue
            if error.code is ProgramCode.ADDRESSING:
                raise
            cpu.set_condition_code(3)
            return
        cpu.set_condition_code(cc)
        return
    cpu.set_condition_code(2)


def _test_block(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    at = real_to_absolute(cpu.gr(ins.rre2) & cpu.psw.address_mask & ~0xFFF, cpu.prefix)
    cpu.write_absolute(at, bytes(4096))
    cpu.set_gr(0, 0)
    cpu.set_condition_code(0)


def _key_extract(cpu: EmbeddedCpu, ins: Instruction, _: Hardware) -> None:
    cpu.set_gr(ins.rre1, cpu.gr(ins.rre1) & ~0xFF)


def _key_reset(cpu: EmbeddedCpu, _ins: Instruction, _: Hardware) -> None:
    cpu.set_condition_code(0)


# --- other CPUs, the SCLP, channels ---


def _servc(cpu: EmbeddedCpu, ins: Instruction, hardware: Hardware) -> None:
    block = real_to_absolute(cpu.gr(ins.rre2) & 0xFFFFFFFF, cpu.prefix)
    cpu.set_condition_code(hardware.servc(cpu.gr(ins.rre1) & 0xFFFFFFFF, block, cpu.prefix))


def _sigp(cpu: EmbeddedCpu, ins: Instruction, hardware: Hardware) -> None:
    order = ins.operand(cpu.gr, cpu.psw) & 0xFF
    parameter = cpu.gr(ins.r1 | 1)
    cc, status = hardware.sigp(cpu, cpu.gr(ins.r3) & 0xFFFF, order, parameter)
    if status is not None:
        _set_low(cpu, ins.r1, status)
    cpu.set_condition_code(cc)


def _no_channel(cpu: EmbeddedCpu, _ins: Instruction, _: Hardware) -> None:
    cpu.set_condition_code(_NOT_OPERATIONAL)


def _no_pending_io(cpu: EmbeddedCpu, _ins: Instruction, _: Hardware) -> None:
    cpu.set_condition_code(0)  # TEST PENDING INTERRUPTION: there is none


def _nothing(_cpu: EmbeddedCpu, _ins: Instruction, _: Hardware) -> None:
    """LOAD PROGRAM PARAMETER and the like have no visible effect."""


# --- operands ---


def _operands(cpu: EmbeddedCpu, ins: Instruction) -> OwnMemory:
    return cpu.operands(base=ins.data[2] >> 4)


def _aligned(cpu: EmbeddedCpu, ins: Instruction, size: int) -> int:
    address = ins.operand(cpu.gr, cpu.psw)
    if address % size:
        raise ProgramInterruption(ProgramCode.SPECIFICATION)
    return address


def _doubleword(cpu: EmbeddedCpu, ins: Instruction) -> int:
    return _aligned(cpu, ins, 8)


def _set_low(cpu: EmbeddedCpu, number: int, value: int) -> None:
    cpu.set_gr(number, cpu.gr(number) & ~0xFFFFFFFF | value & 0xFFFFFFFF)


_TABLE: dict[int, Handler] = {
    0x80: _ssm,
    0x82: _lpsw,
    0xAC: _stnsm,
    0xAD: _stosm,
    0xAE: _sigp,
    0xB1: _lra,
    0xB6: _stctl,
    0xB7: _lctl,
    0xB202: _stidp,
    0xB205: _store_clock,
    0xB206: _sckc,
    0xB207: _stckc,
    0xB208: _spt,
    0xB209: _stpt,
    0xB20A: _spka,
    0xB20B: _ipk,
    0xB20D: _purge,  # PTLB
    0xB210: _spx,
    0xB211: _stpx,
    0xB212: _stap,
    0xB219: _set_address_space,  # SAC
    0xB220: _servc,
    0xB221: _ipte,
    0xB224: _iac,
    0xB229: _key_extract,  # ISKE
    0xB22A: _key_reset,  # RRBE
    0xB22B: _nothing,  # SSKE
    0xB22C: _test_block,
    0xB230: _no_channel,  # CSCH and its family
    0xB231: _no_channel,
    0xB232: _no_channel,
    0xB233: _no_channel,
    0xB234: _no_channel,
    0xB235: _no_channel,
    0xB236: _no_pending_io,
    0xB238: _no_channel,
    0xB23B: _no_channel,
    0xB23C: _nothing,
    0xB246: _stura,
    0xB248: _purge,  # PALB
    0xB24B: _lura,
    0xB276: _no_channel,
    0xB278: _store_clock_extended,
    0xB279: _set_address_space,  # SACF
    0xB27C: _store_clock,
    0xB27D: _stsi,
    0xB280: _nothing,  # LPP
    0xB2B0: _stfle,
    0xB2B1: _stfl,
    0xB2B2: _lpswe,
    0xB905: _lurag,
    0xB925: _sturg,
    0xB98D: _epsw,
    0xE303: _lrag,
    0xE313: _lra,
    0xE501: _test_protection,
    0xEB25: _stctg,
    0xEB2F: _lctlg,
}

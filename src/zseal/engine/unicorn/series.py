"""Series of ultravisor calls that are answered without asking Python each time.

This is the binding of ``native/unicorn_hook/series.c``.
If there is no compiled hook for this kind of computer, or Unicorn refuses it, every call is handled one by one.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np

from zseal import _native
from zseal.arch.psw import CONDITION_CODE_SHIFT
from zseal.engine.errors import EngineError
from zseal.engine.interface import Series

LIMIT = 2048
"""The most calls that are answered until Python is asked again, which checks the time."""
_PAGE_ADDRESS_SIZE = 8


class _Record(ctypes.Structure):
    """``struct series`` of native/unicorn_hook/series.c."""

    _fields_ = (
        ("read", ctypes.c_void_p),
        ("write", ctypes.c_void_p),
        ("otherwise", ctypes.c_void_p),
        ("names", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("registers", ctypes.c_void_p),
        ("block", ctypes.c_void_p),
        ("wanted", ctypes.c_void_p),
        ("mask", ctypes.c_void_p),
        ("answer", ctypes.c_void_p),
        ("ready", ctypes.c_void_p),
        ("pages", ctypes.c_void_p),
        ("instruction", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("condition", ctypes.c_uint64),
        ("code", ctypes.c_uint64),
        ("ready_count", ctypes.c_uint64),
        ("operand", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("field", ctypes.c_uint32),
        ("answer_offset", ctypes.c_uint32),
        ("answer_size", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("limit", ctypes.c_uint32),
    )


def hook_path() -> Path | None:
    """Return the compiled hook for this kind of computer; None if there is none."""
    return _native.library("unicorn_hook")


class SeriesHook:
    """A hook for Unicorn's interruptions that answers the calls of one series and leaves the rest to ``otherwise``.

    ``read`` and ``write`` are addresses of Unicorn's batch functions; ``names`` and ``values`` those of their arguments
    for the sixteen general registers and the PSW, whose values are at ``registers``. Raises OSError if ``path``
    cannot be loaded.
    """

    def __init__(
        self, path: Path, *, read: int, write: int, names: int, values: int, registers: int, otherwise: int
    ) -> None:
        function = ctypes.CDLL(str(path)).zseal_interrupted
        self.function = ctypes.cast(function, ctypes.c_void_p).value or 0
        self._pages = np.zeros(LIMIT, np.uint32)
        self._record = _Record(
            read=read,
            write=write,
            otherwise=otherwise,
            names=names,
            values=values,
            registers=registers,
            pages=self._pages.ctypes.data,
            condition=3 << CONDITION_CODE_SHIFT,
            limit=LIMIT,
        )
        self.record = ctypes.addressof(self._record)
        self._series: Series | None = None
        self._kept: tuple[object, ...] = ()

    def begin(self, series: Series, *, instruction: int, operand: int, address: int, block: int) -> None:
        """Answer calls of ``series`` from now on, until :meth:`end`.

        ``instruction`` is the logical address of the UVC, ``operand`` the number of its register with the control
        block's ``address``. The ``series.size`` bytes of a call like the others are at ``block`` in this process.
        """
        wanted = ctypes.string_at(block, series.size)
        mask = bytearray(b"\xff" * series.size)
        for offset, size in ((series.field, _PAGE_ADDRESS_SIZE), (series.answer_offset, len(series.answer))):
            if offset + size > series.size:
                raise EngineError("a series of calls has fields outside its control block")
            mask[offset : offset + size] = bytes(size)
        record = self._record
        kept = [ctypes.create_string_buffer(bytes(data), len(data)) for data in (wanted, mask, series.answer)]
        record.wanted, record.mask, record.answer = (ctypes.addressof(buffer) for buffer in kept)
        record.ready, record.ready_count = series.ready.ctypes.data, series.ready.size
        record.instruction, record.operand, record.address = instruction, operand, address
        record.code = series.condition_code << CONDITION_CODE_SHIFT
        record.size, record.field = series.size, series.field
        record.answer_offset, record.answer_size = series.answer_offset, len(series.answer)
        record.count = 0
        record.block = block
        self._kept, self._series = (*kept, series.ready), series

    def end(self) -> int:
        """Let the answered calls be carried out, end the series and return their number."""
        series, self._series = self._series, None
        self._record.block = None
        if series is None or not self._record.count:
            return 0
        count: int = self._record.count
        series.complete(self._pages[:count].astype(np.int64))
        return count


Interrupted = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
"""The type of such a hook: engine, number of the interruption, record."""

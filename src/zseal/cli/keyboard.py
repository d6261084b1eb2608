"""A user's terminal as a guest's console: every key goes to the guest except the one that ends the session."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
from collections.abc import Callable
from typing import Self

from zseal.engine.errors import EngineError

ESCAPE = b"\x1d"
"""Ctrl-], as in virsh console."""
_IFLAG, _LFLAG, _CC = 0, 3, 6  # places in termios.tcgetattr's list
_PIECE = 1 << 12


class RawTerminal:
    """Turns off line editing, echo and signals of the terminal ``descriptor`` within a ``with`` block.

    It has no effect on other files. Output is processed as before, so that this program's lines look right.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Self:
        if os.isatty(self._descriptor):
            self._before = termios.tcgetattr(self._descriptor)
            mode = termios.tcgetattr(self._descriptor)
            mode[_IFLAG] &= ~(termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON)
            mode[_LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
            mode[_CC][termios.VMIN], mode[_CC][termios.VTIME] = 1, 0
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, mode)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)


class Keyboard:
    """Reads ``descriptor`` in a thread of its own within a ``with`` block, and passes the bytes to ``write``.

    ``write`` gets the bytes and a function to call when there is room for more. Nothing more is read until then, except
    from a terminal, whose escape key works even if the guest does not take what was typed.

    The escape key calls ``leave`` once and ends the reading. The end of the input ends it without a call. Only a
    terminal has an escape key: input from a file or a pipe is passed on unchanged.
    """

    def __init__(
        self, descriptor: int, write: Callable[[bytes, Callable[[], None]], None], leave: Callable[[], None]
    ) -> None:
        self._descriptor = descriptor
        self._write = write
        self._leave = leave
        self._escape = ESCAPE if os.isatty(descriptor) else None
        self._room = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="zseal-keyboard", daemon=True)

    def __enter__(self) -> Self:
        self._wake_reader, self._wake = os.pipe2(os.O_CLOEXEC)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._wake)  # its other end becomes readable
        self._room.release()  # there may never be room otherwise
        self._thread.join()
        os.close(self._wake_reader)

    def _run(self) -> None:
        readable = select.poll()
        readable.register(self._descriptor, select.POLLIN)
        readable.register(self._wake_reader, select.POLLIN)
        while self._wake_reader not in [descriptor for descriptor, _ in readable.poll()]:
            try:
                data = os.read(self._descriptor, _PIECE)
            except OSError:
                return  # the terminal is gone
            typed, escape, _ = data.partition(self._escape) if self._escape else (data, b"", b"")
            with contextlib.suppress(EngineError):  # the guest has ended meanwhile
                if typed:
                    self._type(typed)
                if escape:
                    self._leave()
            if escape or not data:
                return

    def _type(self, data: bytes) -> None:
        self._write(data, self._room.release)
        if self._escape is None:
            self._room.acquire()

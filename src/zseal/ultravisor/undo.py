"""A call as a whole or not at all: what it changed is taken back if it cannot be completed.

Whatever changes the ultravisor's state names it here first. What cannot be taken back comes at the end: frames are
overwritten when everything else is done, keys are wiped when nothing can fail any more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Where = NDArray[np.int64] | slice | int
KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")
NumberT = TypeVar("NumberT", bound=np.generic)


class Undo:
    """The changes of the call in progress. Between calls it is empty."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []
        self._last: list[Callable[[], object]] = []
        self._afterwards: list[Callable[[], object]] = []

    # ---------------------------------------------------------------- before something changes

    def array(self, array: NDArray[NumberT], where: Where) -> None:
        """Entries ``where`` of ``array`` are about to change."""
        self._steps.append(functools.partial(array.__setitem__, where, np.array(array[where])))

    def fields(self, thing: object) -> None:
        """Attributes of ``thing`` are about to be replaced."""
        self._steps.append(functools.partial(vars(thing).update, dict(vars(thing))))

    def entry(self, mapping: dict[KeyT, ValueT], key: KeyT) -> None:
        """The entry ``key`` of ``mapping`` is about to be added, replaced or removed."""
        if key in mapping:
            self._steps.append(functools.partial(mapping.__setitem__, key, mapping[key]))
        else:
            self._steps.append(functools.partial(mapping.pop, key, None))

    def step(self, action: Callable[[], object]) -> None:
        """``action`` takes back what comes next, or gives up what the call made."""
        self._steps.append(action)

    # ---------------------------------------------------------------- what comes at the end

    def last(self, action: Callable[[], object]) -> None:
        """Do ``action`` once the call is complete otherwise: it changes what cannot be taken back."""
        self._last.append(action)

    def afterwards(self, action: Callable[[], object]) -> None:
        """Do ``action``, which cannot fail, once nothing is taken back any more."""
        self._afterwards.append(action)

    # ---------------------------------------------------------------- the end

    def keep(self) -> None:
        """The call is complete, or as much of it as can stand for itself."""
        for action in self._last:
            action()
        del self._steps[:], self._last[:]
        try:
            for action in self._afterwards:
                action()
        finally:
            del self._afterwards[:]

    def take_back(self) -> None:
        """Make everything what it was before the call."""
        del self._last[:], self._afterwards[:]
        while self._steps:
            self._steps[-1]()
            self._steps.pop()

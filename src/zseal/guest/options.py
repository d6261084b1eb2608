"""The one list of a guest's options, in addition to what it boots and the machine that protects it.

Each option is here twice: with its type for keyword arguments, and with its default and meaning. A test compares the
two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

from zseal.engine.devices import Disk, RandomSource, UserNetwork
from zseal.engine.machine import DEFAULT_MACHINE_TYPE
from zseal.errors import UsageError
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.control.registry import check_name
from zseal.guest.engines import EngineName

DEFAULT_MEMORY = 1 << 30


class RunKeywords(TypedDict, total=False):
    """The keyword arguments of every guest; :class:`RunOptions` explains them."""

    timeout: float | None
    io_policy: IoPolicy | str
    name: str | None
    number_name: bool
    record: bool


class GuestKeywords(RunKeywords, total=False):
    """The keyword arguments of a guest whose machine zseal builds; :class:`GuestOptions` explains them."""

    memory: int
    cpus: int
    disks: Sequence[Disk]
    networks: Sequence[UserNetwork]
    random_sources: Sequence[RandomSource]
    machine_type: str
    line_mode_console: bool
    qemu: str | None
    qemu_arguments: Sequence[str]
    engine: EngineName | str
    run_ahead: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is limited, watched and found. Raises ZsealError for an invalid value."""

    timeout: float | None = None
    """Seconds after which the guest is stopped."""
    io_policy: IoPolicy | str = IoPolicy.ENFORCE
    """What happens if a device request names a page the guest does not share: "enforce", "audit" or "off"."""
    name: str | None = None
    """Other processes of this user find and control the guest by this name (``zseal.guest.control``).

    Letters, digits, dots, dashes and underscores. It must not be in use.
    """
    number_name: bool = False
    """Whether a ``name`` that is in use becomes ``name-2`` and so on."""
    record: bool = False
    """Whether to collect the record that ``Guest.record`` returns."""

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:  # NaN is not above 0 either
            raise UsageError(f"a guest's timeout must be a number of seconds above 0, not {self.timeout:g}")
        IoPolicy.of(self.io_policy)
        if self.name is not None:
            check_name(self.name)

    @property
    def policy(self) -> IoPolicy:
        """The policy that ``io_policy`` is or names."""
        return IoPolicy.of(self.io_policy)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuestOptions(RunOptions):
    """The options above, and those of the machine that zseal builds for the guest."""

    memory: int = DEFAULT_MEMORY
    """Bytes, rounded up to a size that QEMU supports."""
    cpus: int = 1
    disks: Sequence[Disk] = ()
    networks: Sequence[UserNetwork] = ()
    random_sources: Sequence[RandomSource] = ()
    machine_type: str = DEFAULT_MACHINE_TYPE
    """QEMU's machine, such as s390-ccw-virtio-7.2."""
    line_mode_console: bool = False
    """Whether the guest also has a line-mode console (operating-system messages)."""
    qemu: str | None = None
    """The QEMU program to use; None: qemu-system-s390x."""
    qemu_arguments: Sequence[str] = ()
    """Passed to QEMU unchanged; see ``zseal.guest.fences`` for those that are refused."""
    engine: EngineName | str = EngineName.QEMU
    """The engine that executes the guest: "qemu" or "embedded".

    The embedded engine needs the package unicorn instead of QEMU and has neither devices nor Linux (docs/engines.md).
    """
    run_ahead: bool = True
    """False stops QEMU at every ultravisor call, as without the package unicorn."""

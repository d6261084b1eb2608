"""The choice of engine. Command lines need it, so this module imports nothing heavy."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from zseal.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from zseal.engine.interface import Engine
    from zseal.engine.machine import MachineConfig


class EngineName(enum.Enum):
    """The engines that execute the guest's instructions."""

    QEMU = "qemu"
    """QEMU, a separate program: everything, including Linux and devices."""
    EMBEDDED = "embedded"
    """The package unicorn, in this process: bootloaders and bare-metal guests."""


def create_engine(
    name: EngineName | str,
    config: MachineConfig,
    *,
    entry: int | None = None,
    program: str | None = None,
    run_ahead: bool = True,
) -> Engine:
    """Return an engine for the machine ``config``; ``entry``, ``program`` and ``run_ahead`` are for QEMU.

    Raises UsageError if there is no such engine, or ``config`` or ``program`` need QEMU; MissingDependencyError if the
    embedded engine's package is not installed.
    """
    try:
        chosen = EngineName(name)
    except ValueError:
        raise UsageError(f"there is no engine {name!r}", hint="use qemu or embedded") from None
    if chosen is EngineName.QEMU:
        from zseal.engine.qemu.engine import QemuEngine
        from zseal.engine.qemu.launch import LocalLauncher

        return QemuEngine(config, entry=entry, run_ahead=run_ahead, launcher=LocalLauncher(program))
    from zseal.engine.embedded import EmbeddedEngine
    from zseal.engine.machine import DEFAULT_MACHINE_TYPE

    if program is not None or config.machine_type != DEFAULT_MACHINE_TYPE:
        what = "QEMU program" if program is not None else "machine type"
        raise UsageError(f"the embedded engine has no {what} to choose", hint='use `engine="qemu"`')
    return EmbeddedEngine.for_machine(config)


def available_engine() -> EngineName:
    """Return QEMU if it is installed, otherwise the embedded engine; raises MissingDependencyError without either."""
    from zseal.engine.qemu.process import find_program
    from zseal.engine.unicorn.emulator import emulator_version

    try:
        find_program()
    except MissingDependencyError as missing:
        try:
            emulator_version()
        except MissingDependencyError as error:
            raise MissingDependencyError(
                f"no guest can run here: {missing.message}, and {error.message}",
                hint=f"{missing.hint}; or {error.hint}, which runs guests other than Linux",
            ) from None
        return EngineName.EMBEDDED
    return EngineName.QEMU

"""The things that a guest can boot: a sealed image, a disk, or a plain kernel. Each makes a plan."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import os
from pathlib import Path

from zseal.engine.interface import Engine
from zseal.engine.machine import DEFAULT_NAME, MachineConfig, fixed_memory_size
from zseal.errors import InputError
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.devices import with_boot_disk
from zseal.guest.engines import create_engine
from zseal.guest.fences import check_arguments
from zseal.guest.image import BootImage, inspect_image
from zseal.guest.options import GuestOptions, RunOptions
from zseal.guest.protection import Protect, Protection, SecureExecution
from zseal.guest.resources import check_memory
from zseal.hostkeys.machine import Machine
from zseal.jsonvalue import Json
from zseal.linux import kernel_file
from zseal.ultravisor.settings import Settings


class Unprotected:
    """Replaces the machine: no ultravisor protects the guest."""


UNPROTECTED = Unprotected()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A guest before it runs."""

    engine: Engine
    protect: Protect
    """Makes the protection of the guest."""
    subject: dict[str, Json]
    """The beginning of the report: what runs."""
    expected: BootImage | None = None
    """The image that the machine will load, for an ultravisor that begins with it early."""


class Boot(abc.ABC):
    """Something that a guest can boot."""

    @abc.abstractmethod
    def plan(self, options: GuestOptions, machine: Machine | Unprotected, files: contextlib.ExitStack) -> Plan:
        """Return the plan for a guest with ``options`` on ``machine``.

        ``files`` closes the engine and everything else that the plan opens. Raises ZsealError if it cannot run.
        """


@dataclasses.dataclass(frozen=True)
class SealedImage(Boot):
    """The Secure Execution boot image in the file ``path``."""

    path: Path

    def plan(self, options: GuestOptions, machine: Machine | Unprotected, files: contextlib.ExitStack) -> Plan:
        """Open the image and check that the guest has room for it."""
        _check_arguments(options)
        image = inspect_image(self.path)
        files.callback(image.close)
        config = _config(options, kernel=image.descriptor)
        image.check_memory(config.memory)
        subject = {"image": str(self.path), "image_bytes": image.size, **_machine_name(machine)}
        engine = _engine(options, config, image.entry, files)
        protect = protection_by(machine, config.cpus, options)
        return Plan(engine=engine, protect=protect, subject={**subject, **_about(config)}, expected=image)


@dataclasses.dataclass(frozen=True)
class BootDisk(Boot):
    """An image that zipl has installed on the disk with the lowest boot index, or on the first one."""

    def plan(self, options: GuestOptions, machine: Machine | Unprotected, files: contextlib.ExitStack) -> Plan:
        """Choose the disk; the firmware loads the image from it."""
        _check_arguments(options)
        disks, first = with_boot_disk(options.disks)
        config = _config(dataclasses.replace(options, disks=disks), kernel=None)
        engine = _engine(options, config, kernel_file.ENTRY, files)
        protect = protection_by(machine, config.cpus, options)
        subject = {"image": None, "boot_disk": first.path, **_machine_name(machine), **_about(config)}
        return Plan(engine=engine, protect=protect, subject=subject)


@dataclasses.dataclass(frozen=True)
class PlainKernel(Boot):
    """A kernel that QEMU itself loads, with no image and no protection."""

    kernel: Path
    ramdisk: Path | None = None
    cmdline: str = ""

    def plan(self, options: GuestOptions, machine: Machine | Unprotected, files: contextlib.ExitStack) -> Plan:
        """Open the files."""
        check_arguments(options.qemu_arguments, protected=False)
        config = _config(
            options,
            kernel=_open(self.kernel, "kernel", files),
            ramdisk=None if self.ramdisk is None else _open(self.ramdisk, "ramdisk", files),
            cmdline=self.cmdline,
            audited=False,
        )
        engine = _engine(options, config, None, files)
        return Plan(engine=engine, protect=Protection, subject={"kernel": str(self.kernel), **_about(config)})


def _check_arguments(options: GuestOptions) -> None:
    check_arguments(options.qemu_arguments, protected=True, audited=options.policy is not IoPolicy.OFF)


def _config(
    options: GuestOptions,
    *,
    kernel: int | None,
    ramdisk: int | None = None,
    cmdline: str | None = None,
    audited: bool | None = None,
) -> MachineConfig:
    """Return the machine of ``options``; with ``audited`` None their policy decides."""
    return MachineConfig(
        kernel=kernel,
        memory=fixed_memory_size(options.memory),
        cpus=options.cpus,
        ramdisk=ramdisk,
        cmdline=cmdline,
        disks=tuple(options.disks),
        networks=tuple(options.networks),
        random_sources=tuple(options.random_sources),
        line_mode_console=options.line_mode_console,
        machine_type=options.machine_type,
        name=options.name or DEFAULT_NAME,
        extra=tuple(options.qemu_arguments),
        audited=options.policy is not IoPolicy.OFF if audited is None else audited,
    )


def _engine(options: GuestOptions, config: MachineConfig, entry: int | None, files: contextlib.ExitStack) -> Engine:
    check_memory(config.memory)
    engine = create_engine(options.engine, config, entry=entry, program=options.qemu, run_ahead=options.run_ahead)
    files.callback(engine.close)
    return engine


def protection_by(machine: Machine | Unprotected, cpus: int, options: RunOptions) -> Protect:
    """Return a function that makes the protection of a guest with ``cpus`` CPUs on ``machine``."""
    if isinstance(machine, Unprotected):
        return Protection
    settings = Settings.of_model(machine.model)
    return functools.partial(SecureExecution, keys=machine.keys, settings=settings, cpus=cpus, policy=options.policy)


def _about(config: MachineConfig) -> dict[str, Json]:
    return {"memory": config.memory, "cpus": config.cpus, "disks": [disk.path for disk in config.disks]}


def _machine_name(machine: Machine | Unprotected) -> dict[str, Json]:
    return {"machine": machine.name} if isinstance(machine, Machine) else {}


def _open(path: Path, what: str, files: contextlib.ExitStack) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"cannot read the {what}: {error.strerror}", where=str(path)) from error
    files.callback(os.close, descriptor)
    return descriptor

"""Secure configurations (protected guests) and their CPUs: what the ultravisor stores about each."""

from __future__ import annotations

import dataclasses
import enum

from zseal.arch.controls import initial_controls
from zseal.arch.psw import Psw
from zseal.formats.uv_codes import CpuState
from zseal.secret import Secret
from zseal.ultravisor.donations import Donation
from zseal.ultravisor.image.acceptance import AcceptedHeader
from zseal.ultravisor.image.unpacking import Unpacking
from zseal.ultravisor.secret_store import SecretStore
from zseal.ultravisor.securestorage import GuestStorage


class ConfigurationState(enum.Enum):
    """The phases of a configuration's life."""

    CREATED = "created"
    PARAMETERS = "parameters"
    """The SE header is accepted."""
    UNPACKING = "unpacking"
    BROKEN = "broken"
    """Header or image failed: the configuration can only be destroyed."""
    SECURE = "secure"
    """The image is verified: CPUs may run."""
    RESETTING = "resetting"
    """The guest asked for a reset, which the host has to carry out."""


@dataclasses.dataclass
class Registers:
    """The registers of a secure CPU, which the host never sees. Engines keep their own and do not use these."""

    psw: Psw = dataclasses.field(default_factory=lambda: Psw(0, 0))
    general: list[int] = dataclasses.field(default_factory=lambda: [0] * 16)
    access: list[int] = dataclasses.field(default_factory=lambda: [0] * 16)
    control: list[int] = dataclasses.field(default_factory=initial_controls)
    vector: list[bytes] = dataclasses.field(default_factory=lambda: [bytes(16)] * 32)
    prefix: int = 0
    floating_point_control: int = 0
    tod_programmable: int = 0
    cpu_timer: int = 0
    clock_comparator: int = 0

    def initial_reset(self) -> None:
        """Initial CPU reset: PSW, prefix, control registers and clocks to their initial values."""
        kept = (self.general, self.access, self.vector)
        self.clear_reset()
        self.general, self.access, self.vector = kept

    def clear_reset(self) -> None:
        """Clear reset: everything to its initial value, which is zero except for CR0 and CR14."""
        fresh = Registers()
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(fresh, field.name))


@dataclasses.dataclass
class SecureCpu:
    """One CPU of a configuration. ``state`` OPERATING_LOAD means that its next entry loads a PSW."""

    handle: int
    configuration: Configuration
    number: int
    donation: Donation
    sie_block: int
    state: CpuState = CpuState.STOPPED
    registers: Registers = dataclasses.field(default_factory=Registers)
    running: bool = False
    """Whether it is inside SIE now."""
    timer_at_exit: tuple[int, int] | None = None
    """The CPU timer when it last left SIE, and the clock then, both in units of the timer; None after a reset."""


@dataclasses.dataclass
class Configuration:
    """One protected guest, from CREATE_SEC_CONF to DESTROY_SEC_CONF."""

    handle: int
    guest: GuestStorage
    asce: int
    sca: int
    uid: bytes
    donation: Donation
    state: ConfigurationState = ConfigurationState.CREATED
    accepted: AcceptedHeader | None = None
    unpacking: Unpacking | None = None
    cpus: dict[int, SecureCpu] = dataclasses.field(default_factory=dict)
    """By CPU number."""
    was_reset: bool = False
    """The next CPU that loads takes its PSW from guest absolute 0 instead of the SE header."""
    secret_store: SecretStore = dataclasses.field(default_factory=SecretStore)
    unshared: bool = False
    """SET_UNSHARE_ALL was done and nothing ran since."""

    @property
    def stopped(self) -> bool:
        """Whether no CPU operates."""
        return all(cpu.state in (CpuState.STOPPED, CpuState.CHECK_STOP) for cpu in self.cpus.values())

    def wipe(self) -> None:
        """Forget every key."""
        self.forget_image_key()
        self.secret_store.wipe()
        if self.accepted is not None:
            self.accepted.wipe()
        self.accepted = None

    def replace_communication_key(self, key: Secret) -> Secret:
        """Take ``key`` (32 bytes) for the customer communication key from now on; return the one before."""
        assert self.accepted is not None  # noqa: S101 - only a running guest gets a new key
        before = self.accepted.cck
        self.accepted = dataclasses.replace(self.accepted, cck=key)
        return before

    def forget_image_key(self) -> None:
        """Forget the key of the image's components, which is not needed once they are unpacked."""
        if self.unpacking is not None:
            self.unpacking.wipe()
        if self.accepted is not None:
            self.accepted.image_key.wipe()
        self.unpacking = None

"""The kind of machine of a software ultravisor: its sizes, limits and features, as QUI reports them."""

from __future__ import annotations

import dataclasses
import enum

from zseal.arch.machine_model import MachineModel
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.formats import request
from zseal.formats.add_secret_request import AddSecretFlags, SecretType
from zseal.formats.attestation_request import AttestationFlags
from zseal.formats.se_header import VERSION_1, PlainFlags, SecretFlags
from zseal.formats.uv_codes import Command


class Feature(enum.IntFlag):
    """Feature indications (QUI); bit 0 is the most significant."""

    MISC = 1 << (63 - 0)
    """TEID bit 61 is reliable; importing a frame that another guest shares takes it over."""
    AIV = 1 << (63 - 1)
    """Adapter-interruption virtualisation for protected guests."""
    AP = 1 << (63 - 4)
    """AP (crypto adapter) instructions may be allowed to guests."""
    AP_INTERRUPTIONS = 1 << (63 - 5)
    """AP interruptions may be allowed to guests."""
    LARGE_FRAMES = 1 << (63 - 6)
    """1 MiB frames can back guests."""


# reserved bits 49, 51 and 63 are on in the mask a real machine reports
_REPORTED_FLAGS = 1 << (63 - 49) | 1 << (63 - 51) | 1


_ATTESTATION_AND_SECRETS = frozenset(
    {
        Command.RETR_ATTEST,
        Command.ADD_SECRET,
        Command.LIST_SECRETS,
        Command.LOCK_SECRETS,
        Command.RETR_SECRET,
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A machine's properties. Sizes are in bytes; the defaults follow what a z16 reports where that is public."""

    uv_base_storage: int = 98 * MIB
    """Donated once, at INIT_UV."""
    conf_base_storage: int = MIB
    """Donated for each configuration, contiguous."""
    conf_virtual_base: int = 0x10000
    """Donated for each configuration: the fixed part of its variable storage."""
    conf_virtual_per_mib: int = 0x2000
    """Donated per configuration and MiB of guest storage."""
    cpu_storage: int = PAGE_SIZE
    """Donated for each CPU; also the size of its dump area."""
    max_configurations: int = 8388607
    max_guest_address: int = 0x800000000000
    max_cpu_number: int = 256
    features: Feature = Feature.MISC | Feature.LARGE_FRAMES
    header_versions: tuple[int, ...] = (VERSION_1,)
    plaintext_flags: int = PlainFlags.known() | _REPORTED_FLAGS
    """Supported plaintext control flags of SE headers."""
    secret_flags: int = SecretFlags.known()
    """Supported secret control flags of SE headers."""
    max_header_size: int = 8192
    """Larger SE headers are refused, as in KVM."""
    attestation_versions: tuple[int, ...] = (request.VERSION_1,)
    attestation_flags: int = AttestationFlags.known()
    add_secret_versions: tuple[int, ...] = (request.VERSION_1,)
    add_secret_flags: int = AddSecretFlags.known()
    secret_types: frozenset[SecretType] = frozenset(SecretType)
    max_association_secrets: int = 10
    max_retrievable_secrets: int = 100
    disabled_calls: frozenset[Command] = frozenset()
    """Calls that are not installed on this machine, to represent older firmware."""

    @classmethod
    def of_model(cls, model: MachineModel) -> Settings:
        """Return the settings of a machine of this generation, so far as they are public.

        Which firmware level brought which feature is not: docs/ultravisor.md says what is assumed.
        """
        if model is MachineModel.Z17:
            return cls()
        hmac = PlainFlags.PCKMO_HMAC
        if model is MachineModel.Z16:
            return cls(
                plaintext_flags=cls.plaintext_flags & ~hmac,
                secret_flags=cls.secret_flags & ~SecretFlags.CCK_UPDATE,
                secret_types=frozenset({SecretType.META, SecretType.ASSOCIATION}),
                max_retrievable_secrets=0,
                disabled_calls=frozenset({Command.RETR_SECRET}),
            )
        return cls(
            features=Feature.MISC,
            plaintext_flags=cls.plaintext_flags & ~hmac & ~PlainFlags.DUMP,
            secret_flags=0,
            attestation_versions=(),
            attestation_flags=0,
            add_secret_versions=(),
            add_secret_flags=0,
            secret_types=frozenset(),
            max_association_secrets=0,
            max_retrievable_secrets=0,
            disabled_calls=_ATTESTATION_AND_SECRETS | {Command.QUERY_KEYS, Command.DESTROY_SEC_CONF_FAST},
        )

    @property
    def missing_calls(self) -> frozenset[Command]:
        """Calls that are not installed: the disabled ones, and those that need them.

        Share and unshare are installed together or not at all, as Linux requires.
        """
        missing = set(self.disabled_calls)
        if Feature.LARGE_FRAMES not in self.features:
            missing.add(Command.VERIFY_LARGE_FRAME)
        sharing = {Command.SET_SHARED_ACCESS, Command.REMOVE_SHARED_ACCESS}
        return frozenset(missing | sharing if missing & sharing else missing)

    def variable_storage(self, guest_bytes: int) -> int:
        """Return the bytes of variable storage a configuration with ``guest_bytes`` of storage donates."""
        variable = self.conf_virtual_per_mib * (guest_bytes // MIB)
        return -(-variable // PAGE_SIZE) * PAGE_SIZE + self.conf_virtual_base

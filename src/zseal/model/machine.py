"""A machine in Python: storage, its ultravisor and a host that runs on it. No QEMU."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from zseal.arch.storage import MIB, PAGE_SHIFT
from zseal.crypto.keyexchange import CURVE, MachineKeys
from zseal.engine.memory import SharedMemory
from zseal.model.frames import FrameAllocator
from zseal.model.host import ModelHost
from zseal.ultravisor import EventLog, Settings, Ultravisor

_BASE_ORIGIN = 2 << 30
_RESERVED = MIB  # the host's own lowcore


class ModelMachine:
    """A machine with ``memory`` bytes for guests, whose ultravisor has ``keys`` (new ones by default).

    ``host`` is its hypervisor, which gets the host's side of the ultravisor and nothing else.
    """

    def __init__(
        self,
        *,
        memory: int = 256 * MIB,
        keys: MachineKeys | None = None,
        settings: Settings | None = None,
        log: EventLog | None = None,
    ) -> None:
        settings = settings or Settings()
        self.keys = keys or MachineKeys(ec.generate_private_key(CURVE()))
        end = max(_BASE_ORIGIN, -(-(_RESERVED + memory) // MIB) * MIB)
        self.storage = SharedMemory(end + -(-settings.uv_base_storage // MIB) * MIB)
        self.ultravisor = Ultravisor(self.storage, self.keys, settings=settings, log=log)
        frames = FrameAllocator(_RESERVED >> PAGE_SHIFT, (_RESERVED + memory) >> PAGE_SHIFT)
        self.host = ModelHost(self.ultravisor.host, frames, base_origin=end)

    def close(self) -> None:
        """Give the memory back."""
        self.storage.close()

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public key for which images for this machine are sealed."""
        return self.keys.host.public_key()

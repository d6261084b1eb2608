"""Everything an ultravisor remembers, as plain values that can be compared with those of another moment."""

from __future__ import annotations

import numpy as np

from zseal.arch.storage import PAGE_SIZE
from zseal.ultravisor.configuration import Configuration, SecureCpu
from zseal.ultravisor.secret_store import SecretStore
from zseal.ultravisor.securestorage import GuestStorage
from zseal.ultravisor.state import MachineState
from zseal.ultravisor.tables import SECURE


def frozen(machine: MachineState, *, content: int = 0, top: int = 1 << 17) -> dict[str, object]:
    """Return the state of an ultravisor, with what secure frames hold and the first ``content`` bytes of storage.

    What counts and what is logged is left out, and so are numbers that are never given twice. ``top`` is one beyond the
    last frame that is looked at: above are those of the ultravisor's own storage only.
    """
    frames = machine.secure.frames
    used = np.flatnonzero(frames.state[:top])
    held = used[frames.state[used] >= SECURE]
    return {
        "frames": tuple(array.tobytes() for array in (used, frames.state[used], frames.owner[used], frames.page[used])),
        "content": {number: machine.storage.read(number * PAGE_SIZE, PAGE_SIZE) for number in held.tolist()},
        "storage": machine.storage.read(0, content),
        "large": set(machine.secure.large),
        "guests": {serial: _guest(guest) for serial, guest in machine.secure.guests.items()},
        "configurations": {handle: _configuration(each) for handle, each in machine.configurations.items()},
        "cpus": {handle: _cpu(each) for handle, each in machine.cpus.items()},
        "donated": machine.ledger.total,
        "base": None if machine.base is None else int(machine.base.frames[0]),
    }


def _guest(guest: GuestStorage) -> tuple[object, ...]:
    pages, sealer = guest.pages, guest.sealer
    used = np.flatnonzero(pages.state)
    tables = (pages.state[used], pages.frame[used], pages.counter[used], pages.tag[used])
    keys = (sealer._encryption.reveal(), sealer._integrity.reveal(), sealer._nonce.reveal())
    return (used.tobytes(), *(table.tobytes() for table in tables), keys)


def _configuration(each: Configuration) -> tuple[object, ...]:
    accepted, unpacking = each.accepted, each.unpacking
    return (
        each.guest.serial, each.asce, each.sca, each.uid, each.donation.frames.tobytes(), each.state, sorted(each.cpus),
        each.was_reset, each.unshared,
        None if accepted is None else (accepted.tag, accepted.cck.reveal(), accepted.image_key.reveal(), accepted.psw),
        None if unpacking is None else unpacking.digested.values(), _store(each.secret_store),
    )  # fmt: skip


def _store(store: SecretStore) -> tuple[object, ...]:
    extension = store.extension_secret
    return (
        [(each.type, each.secret_id, each.value.reveal()) for each in store.stored], store.hash, store.dump_disabled,
        None if extension is None else extension.reveal(), store.wrapping_key.reveal(),
    )  # fmt: skip


def _cpu(each: SecureCpu) -> tuple[object, ...]:
    return (
        each.configuration.handle, each.number, each.donation.frames.tobytes(), each.sie_block, each.state,
        repr(each.registers), each.running, each.timer_at_exit,
    )  # fmt: skip

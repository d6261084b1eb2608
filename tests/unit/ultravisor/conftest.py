"""A model host and guest for every test of the ultravisor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto.keyexchange import CURVE, MachineKeys
from zseal.model.guest import ModelGuest
from zseal.model.host import ModelHost


@pytest.fixture(scope="session")
def machine_keys() -> MachineKeys:
    return MachineKeys(ec.generate_private_key(CURVE()), ec.generate_private_key(CURVE()))


@pytest.fixture
def host(machine_keys: MachineKeys) -> Iterator[ModelHost]:
    host = ModelHost(keys=machine_keys)
    yield host
    host.close()


@pytest.fixture
def guest(host: ModelHost) -> ModelGuest:
    guest = ModelGuest(host)
    guest.start()
    return guest

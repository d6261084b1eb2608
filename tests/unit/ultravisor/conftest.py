"""A model host and guest for every test of the ultravisor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from zseal.crypto.keyexchange import CURVE, MachineKeys
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine


@pytest.fixture(scope="session")
def machine_keys() -> MachineKeys:
    return MachineKeys(ec.generate_private_key(CURVE()), ec.generate_private_key(CURVE()))


@pytest.fixture
def machine(machine_keys: MachineKeys) -> Iterator[ModelMachine]:
    machine = ModelMachine(keys=machine_keys)
    yield machine
    machine.close()


@pytest.fixture
def guest(machine: ModelMachine) -> ModelGuest:
    guest = ModelGuest(machine)
    guest.start()
    return guest

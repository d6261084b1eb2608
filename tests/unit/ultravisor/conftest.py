"""A model host and guest for every test of the ultravisor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.ultravisor.frozen import frozen
from zseal.arch.storage import OperandMemory
from zseal.crypto.keyexchange import CURVE, MachineKeys
from zseal.formats.uv_codes import Command, SetParameters, VerifyImage
from zseal.formats.uvcb import RC_OFFSET, UvcbHeader
from zseal.model.guest import ModelGuest
from zseal.model.machine import ModelMachine
from zseal.ultravisor import dispatch
from zseal.ultravisor.configuration import Configuration, ConfigurationState
from zseal.ultravisor.state import HostMemory, MachineState

COMPARING = ("test_stateful.py", "test_all_or_nothing.py")  # these look by themselves
BREAKING = {
    Command.VERIFY_IMG: {answer.rc for answer in VerifyImage},
    Command.SET_SEC_CONF_PARAMS: {answer.rc for answer in SetParameters} - {SetParameters.ACCESS.rc},
}
"""Refusals after which a configuration can only be destroyed."""


def unbroken(state: dict[str, object], machine: MachineState) -> dict[str, object]:
    """``state`` without the configurations that are broken now."""
    broken = {handle for handle, each in machine.configurations.items() if each.state is ConfigurationState.BROKEN}
    configurations = state["configurations"]
    assert isinstance(configurations, dict)
    return {**state, "configurations": {key: each for key, each in configurations.items() if key not in broken}}


@pytest.fixture(autouse=True)
def refusals_change_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test here does: after a call that is refused everything is as before it."""
    if request.node.path.name in COMPARING or "concurrent" in request.node.name:
        return
    execute = dispatch.execute

    def watched(
        machine: MachineState,
        address: int,
        memory: OperandMemory,
        *,
        host: HostMemory | None = None,
        caller: Configuration | None = None,
    ) -> int:
        if not address % 8:
            memory.write(address + RC_OFFSET, bytes(4))
        before, refused = frozen(machine), machine.refused.total()
        cc = execute(machine, address, memory, host=host, caller=caller)
        if machine.refused.total() != refused:
            assert cc == 1
            header = UvcbHeader.unpack(memory.read(address, UvcbHeader.SIZE))
            memory.write(address + RC_OFFSET, bytes(4))
            after = frozen(machine)
            memory.write(address + RC_OFFSET, header.pack()[RC_OFFSET:])
            if header.rc in BREAKING.get(Command(header.command), ()):
                before, after = unbroken(before, machine), unbroken(after, machine)
            assert after == before, header
        return cc

    monkeypatch.setattr("zseal.ultravisor.host.execute", watched)
    monkeypatch.setattr("zseal.ultravisor.firmware.execute", watched)


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

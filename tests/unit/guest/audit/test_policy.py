"""What a guest is told about its I/O audit: by value or by name, and refused at once where there is no such policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from zseal.arch.storage import MIB
from zseal.errors import UsageError
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.guest import Guest
from zseal.hostkeys.machine import Machine
from zseal.image.build import build_image
from zseal.testguest import kernel


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine.create(tmp_path_factory.mktemp("machines") / "ours")


@pytest.mark.parametrize("policy", IoPolicy)
def test_policy_may_be_given_by_its_name(tmp_path: Path, machine: Machine, policy: IoPolicy) -> None:
    image = tmp_path / "image"
    build_image(image, kernel=kernel(), cmdline=b"hello", host_keys=[machine.keys.host.public_key()])
    for given in (policy, policy.value):
        guest = Guest(image, machine=machine, memory=16 * MIB, io_policy=given)
        try:
            assert (None if guest.io is None else guest.io.policy) is (None if policy is IoPolicy.OFF else policy)
        finally:
            guest.close()


def test_unknown_policy_is_refused_before_anything_is_read(machine: Machine) -> None:
    with pytest.raises(UsageError, match="no I/O policy 'strict'") as caught:
        Guest(Path("nowhere"), machine=machine, io_policy="strict")
    assert caught.value.hint == "use enforce, audit or off"

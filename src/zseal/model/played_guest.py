"""A guest that is only played: a software machine answers for it immediately, without booting anything.

The ultravisor is the real one. It opens the SE header of the image and creates the configuration; the image's pages are
left out, so that a relying party's tests take milliseconds. A guest that boots answers alike.
"""

from __future__ import annotations

import contextlib
from types import TracebackType

from zseal.arch.machine_model import MachineModel
from zseal.arch.storage import MIB, PAGE_SIZE
from zseal.crypto.keyexchange import MachineKeys
from zseal.errors import InputError
from zseal.formats.request import MAX_REQUEST_SIZE
from zseal.formats.secret_list import SecretList
from zseal.formats.uv_codes import Command, Generic, RetrieveSecret
from zseal.formats.uvcb import (
    AddSecretUvcb,
    AttestUvcb,
    HandleUvcb,
    ListSecretsUvcb,
    RetrieveSecretUvcb,
    UvcbHeader,
)
from zseal.model.machine import ModelMachine
from zseal.ultravisor.configuration import Configuration, ConfigurationState
from zseal.ultravisor.settings import Settings
from zseal.uvdevice.interface import AttestationAnswer, UltravisorRefusedError

_MEMORY = 4 * MIB
_BLOCK, _MEASUREMENT, _LIST, _ADDITIONAL, _REQUEST = 0, 0x1000, 0x2000, 0x10000, MIB
_MAX_BUFFER = 0x8000
_EXECUTED = Generic.EXECUTED.rc


class PlayedGuest:
    """A guest of the machine with ``keys`` whose image has ``header`` (:class:`zseal.uvdevice.GuestUltravisor`).

    ``cuid`` is its configuration unique ID (16 bytes; default: random). Raises CallFailed with the machine's
    answer for an image that it does not start.
    """

    def __init__(
        self, keys: MachineKeys, header: bytes, *, model: MachineModel = MachineModel.Z17, cuid: bytes | None = None
    ) -> None:
        self._machine = ModelMachine(memory=4 * _MEMORY, keys=keys, settings=Settings.of_model(model))
        with contextlib.ExitStack() as undo:
            undo.callback(self._machine.close)
            host, firmware = self._machine.host, self._machine.ultravisor.firmware
            created = host.create(_MEMORY)
            host.set_parameters(created, header)
            self._handle = created.handle
            self._firmware = firmware
            configuration = firmware.configuration(created.handle)
            configuration.state = ConfigurationState.SECURE
            if cuid is not None:
                configuration.uid = cuid
            for page in range(_MEMORY // PAGE_SIZE):
                host.map_page(created, page)
            firmware.adopt_all(created.handle)
            undo.pop_all()

    @property
    def configuration(self) -> Configuration:
        """What the ultravisor knows of the guest."""
        return self._firmware.configuration(self._handle)

    def __enter__(self) -> PlayedGuest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back."""
        self._machine.close()

    def _read(self, address: int, length: int) -> bytes:
        return self._firmware.guest_read(self._handle, address, length)

    def _write(self, address: int, data: bytes) -> None:
        self._firmware.guest_write(self._handle, address, data)

    def _call(self, block: UvcbHeader) -> int:
        """Issue the call; return rc, raise UltravisorRefusedError unless it is 0001 or 0100."""
        self._write(_BLOCK, block.pack())
        self._firmware.guest_call(self._handle, _BLOCK)
        answer = UvcbHeader.unpack(self._read(_BLOCK, UvcbHeader.SIZE))
        if answer.rc not in (_EXECUTED, Generic.MORE_DATA.rc):
            raise UltravisorRefusedError(Command(block.command), answer.rc, answer.rrc)
        return answer.rc

    def attest(
        self, arcb: bytes, *, user_data: bytes, measurement_size: int, additional_size: int
    ) -> AttestationAnswer:
        """Have the guest measured; raises UltravisorRefusedError."""
        if max(measurement_size, additional_size) > _MAX_BUFFER:
            raise InputError(f"an answer has at most {_MAX_BUFFER} bytes of measurement and of additional data")
        self._write_request(arcb)
        block = AttestUvcb(
            length=AttestUvcb.SIZE,
            command=Command.RETR_ATTEST,
            arcb_addr_virt=_REQUEST,
            user_data_len=len(user_data),
            user_data=user_data.ljust(256, b"\0")[:256],
            meas_len=measurement_size,
            meas_addr_virt=_MEASUREMENT,
            add_data_len=additional_size,
            add_data_addr_virt=_ADDITIONAL,
        )
        self._call(block)
        answer = AttestUvcb.unpack(self._read(_BLOCK, AttestUvcb.SIZE))
        # Linux' driver hands back as many bytes as were asked for
        return AttestationAnswer(
            self._read(_MEASUREMENT, measurement_size), self._read(_ADDITIONAL, additional_size), answer.config_uid
        )

    def _write_request(self, request: bytes) -> None:
        if not 0 < len(request) <= MAX_REQUEST_SIZE:
            raise InputError(f"a request has 1 to {MAX_REQUEST_SIZE} bytes, not {len(request)}")
        self._write(_REQUEST, request.ljust(PAGE_SIZE, b"\0"))

    def add_secret(self, request: bytes) -> None:
        """Add a secret; raises UltravisorRefusedError."""
        self._write_request(request)
        self._call(AddSecretUvcb.call(Command.ADD_SECRET, request_addr_virt=_REQUEST))

    def list_secrets(self) -> bytes:
        """Return the whole list; raises UltravisorRefusedError."""
        pages: list[SecretList] = []
        start = 0
        while not pages or start:
            self._call(ListSecretsUvcb.call(Command.LIST_SECRETS, start_index=start, list_addr_virt=_LIST))
            pages.append(SecretList.parse(self._read(_LIST, PAGE_SIZE)))
            start = pages[-1].next_index
        entries = tuple(entry for page in pages for entry in page.entries)
        return SecretList(entries, pages[-1].total).pack()

    def lock_secrets(self) -> None:
        """Lock the secret store; raises UltravisorRefusedError."""
        self._call(HandleUvcb.call(Command.LOCK_SECRETS))

    def retrieve_secret(self, index: int, size: int) -> bytes:
        """Return the secret with this index, ``size`` bytes; raises UltravisorRefusedError."""
        if size > _MAX_BUFFER:
            raise UltravisorRefusedError(Command.RETR_SECRET, RetrieveSecret.BUFFER.rc, 0)
        block = RetrieveSecretUvcb.call(Command.RETR_SECRET, index=index, buffer_len=size, buffer_addr_virt=_ADDITIONAL)
        self._call(block)
        return self._read(_ADDITIONAL, size)

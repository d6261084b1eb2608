"""How a hypervisor issues ultravisor calls: with a control block in its storage, again while they are busy."""

from __future__ import annotations

from typing import TypeVar

from zseal.engine.errors import EngineError
from zseal.formats.uv_codes import RC_NEED_DESTROY, Command, describe
from zseal.formats.uvcb import CreateConfUvcb, HandleUvcb, UvcbHeader
from zseal.ultravisor.host import HostInterface

_BUSY = 2  # condition codes 2 (busy) and 3 (partial completion): the block is unchanged, issue the call again

BlockT = TypeVar("BlockT", bound=UvcbHeader)


class CallFailed(EngineError):  # noqa: N818 - an answer, and an error only if the caller does not expect it
    """A host call was not answered with success: its ``command``, ``rc`` and ``rrc``."""

    def __init__(self, command: Command, rc: int, rrc: int) -> None:
        super().__init__(describe(command, rc, rrc))
        self.command, self.rc, self.rrc = command, rc, rrc


class CallingHost:
    """Base of hypervisors: issues calls of ``uv`` with one control block, in the page at absolute ``block_address``."""

    def __init__(self, uv: HostInterface, block_address: int) -> None:
        self.uv = uv
        self._block_address = block_address

    def issue(self, block: BlockT) -> tuple[int, BlockT]:
        """Issue one call, once; return condition code and answered block."""
        self.uv.write(self._block_address, block.pack())
        cc = self.uv.call(self._block_address)
        return cc, type(block).unpack(self.uv.read(self._block_address, block.SIZE))

    def complete(self, block: BlockT) -> tuple[int, BlockT]:
        """Issue one call until it is done or refused; return condition code (0, 1) and answered block."""
        cc, answer = self.issue(block)
        while cc >= _BUSY:
            cc, answer = self.issue(block)
        return cc, answer

    def call(self, block: BlockT) -> BlockT:
        """Issue one call until it is done; return the answered block. Raises CallFailed."""
        cc, answer = self.complete(block)
        if cc:
            raise CallFailed(Command(block.command), answer.rc, answer.rrc)
        return answer

    def call_handle(self, command: Command, handle: int) -> None:
        """Issue one of the calls that take nothing but a handle; raises CallFailed."""
        self.call(HandleUvcb.call(command, handle=handle))

    def create_configuration(self, block: CreateConfUvcb) -> int:
        """CREATE_SEC_CONF; return the handle. A configuration that failed half-way is destroyed, as in KVM. Raises
        CallFailed.
        """
        cc, answer = self.complete(block)
        if not cc:
            return answer.guest_handle
        if answer.rc & RC_NEED_DESTROY:
            self.call_handle(Command.DESTROY_SEC_CONF, answer.guest_handle)
        raise CallFailed(Command.CREATE_SEC_CONF, answer.rc, answer.rrc)

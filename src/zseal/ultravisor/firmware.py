"""The ultravisor as the machine itself sees it: running guests, and their CPUs' accesses and calls.

It is for engines and the code that completes a guest's instructions. Code in the role of a host gets
:class:`zseal.ultravisor.host.HostInterface`, which gives no access to this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from zseal.arch.storage import OperandMemory, Storage
from zseal.formats.ipib import IpibComponent
from zseal.formats.uv_codes import Command
from zseal.ultravisor import access, sie
from zseal.ultravisor.calls.storage import PageCalls, page_calls
from zseal.ultravisor.configuration import Configuration, ConfigurationState, SecureCpu
from zseal.ultravisor.dispatch import execute
from zseal.ultravisor.image.unpack_ahead import UnpackAhead
from zseal.ultravisor.securestorage import RUN_SIZE
from zseal.ultravisor.state import HostCpus, MachineState
from zseal.ultravisor.tables import Index

Data = bytes | bytearray | memoryview


class GuestOperands:
    """A guest's storage as its CPUs see it with DAT off and prefix 0."""

    def __init__(self, firmware: FirmwareInterface, handle: int) -> None:
        self._firmware, self._handle = firmware, handle

    @property
    def designation(self) -> int | None:
        """None: addresses are absolute."""
        return None

    def read(self, address: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes; raises ProgramInterruption."""
        return self._firmware.guest_read(self._handle, address, length)

    def write(self, address: int, data: Data) -> None:
        """Store ``data``; raises ProgramInterruption."""
        self._firmware.guest_write(self._handle, address, data)

    def check(self, address: int, length: int, *, write: bool) -> None:
        """Raise what an access would raise."""
        self._firmware.guest_read(self._handle, address, length)


class FirmwareInterface:
    """The firmware between a machine's hardware and its guests. Guest addresses are guest absolute.

    Any thread may call any method: calls take effect one after the other. Methods that take a configuration's handle
    raise UvcRefusal (rc 0020) if it does not exist, ValidityIntercept if it is not running.
    """

    def __init__(self, machine: MachineState) -> None:
        self._machine = machine

    @property
    def storage(self) -> Storage:
        """The machine's storage, unprotected: for engines, which are in the place of the hardware."""
        return self._machine.storage

    @property
    def host_cpus(self) -> HostCpus:
        """The state of the host's own CPUs; the code that models them keeps it up to date."""
        return self._machine.host_cpus

    def configuration(self, handle: int) -> Configuration:
        """Return the ultravisor's record of a configuration."""
        with self._machine.lock:
            return self._machine.configuration(handle)

    # ---------------------------------------------------------------- running guests

    def _guest(self, handle: int) -> Configuration:
        """The configuration that ``handle``, its own or that of one of its CPUs, stands for; it must be running."""
        cpu = self._machine.cpus.get(handle)
        handle = cpu.configuration.handle if cpu else handle
        configuration = self._machine.configuration(handle)
        if configuration.state is not ConfigurationState.SECURE:
            raise sie.ValidityIntercept(sie.Validity.STATE)
        return configuration

    def enter(self, configuration: int, cpu: int, *, asce: int) -> SecureCpu:
        """Let the CPU with handle ``cpu`` run, as SIE does; ``asce`` is the host's primary address space (CR1).

        Raises ValidityIntercept, and PrefixIntercept while the host has to import the CPU's prefix pages.
        """
        with self._machine.whole():
            return sie.enter(self._machine, configuration, cpu, asce)

    def leave(self, cpu: int) -> None:
        """Take note that the CPU with handle ``cpu`` no longer runs."""
        with self._machine.whole():
            sie.leave(self._machine, cpu)

    def request_reset(self, handle: int) -> None:
        """Take note that the guest asked for a reset (DIAGNOSE 308 subcode 0 or 1)."""
        with self._machine.whole():
            sie.request_reset(self._machine, handle)

    def adopt_all(self, handle: int) -> int:
        """Make every page that was never used private, as zeros; return their number.

        It is for engines that cannot see a guest's first touch of a page. Storage with a ``clear`` method of its own
        is cleared through it, so that nothing is allocated.
        """
        with self._machine.whole():
            guest = self._guest(handle).guest
            return self._machine.secure.adopt(guest, 0, guest.pages.count)

    # ---------------------------------------------------------------- a guest's calls and accesses

    def guest_call(self, handle: int, address: int, memory: OperandMemory | None = None) -> int:
        """Execute a UVC of a guest, named by the handle of its configuration or of the CPU that issues it.

        Without ``memory`` addresses are guest absolute. Returns the condition code; 2 means that the guest issues the
        call again. Raises ProgramInterruption: 3e for the host, which imports the page and lets the guest try again,
        anything else for the guest.
        """
        with self._machine.lock:
            configuration = self._guest(handle)
            memory = memory or GuestOperands(self, configuration.handle)
            return execute(self._machine, address, memory, caller=configuration)

    def page_calls(self, handle: int, command: int) -> PageCalls | None:
        """Return how the guest's ``command`` is executed for many pages together.

        Returns None for a command that does not share or unshare pages, and if each call has to come to
        :meth:`guest_call`.
        """
        with self._machine.lock:
            if command not in self._machine.guest_rows:
                return None
            calls = page_calls(self._machine, self._guest(handle), Command(command))
        if calls is None:
            return None
        carry_out = calls.carry_out

        def locked(pages: Index) -> None:
            with self._machine.whole():
                carry_out(pages)

        return dataclasses.replace(calls, carry_out=locked)

    def guest_read(self, handle: int, address: int, length: int) -> bytes:
        """Return what the guest reads; raises ProgramInterruption 5 for the guest, 11, 3c, 3e and 3f for its host."""
        with self._machine.lock:
            return access.guest_read(self._machine.secure, self._guest(handle).guest, address, length)

    def guest_write(self, handle: int, address: int, data: Data) -> None:
        """Store for the guest, all or nothing; raises as :meth:`guest_read`."""
        with self._machine.lock:
            access.guest_write(self._machine.secure, self._guest(handle).guest, address, data)

    # ---------------------------------------------------------------- images to come

    def expect_image(
        self, header: bytes, components: Sequence[IpibComponent], read: Callable[[int, int], bytes]
    ) -> None:
        """Begin to work on an image that will probably be unpacked next; no answer of any call depends on it.

        ``components`` are in the order in which they will come. ``read(address, length)`` returns stored bytes; it is
        called in a thread of its own and may raise OSError. It works on one image at a time and forgets the previous
        one.
        """
        self.expect_no_image()
        machine = self._machine
        ahead = UnpackAhead(header, components, read, keys=machine.keys, settings=machine.settings, piece=RUN_SIZE)
        with machine.lock:
            machine.unpack_ahead = ahead

    def expect_no_image(self) -> None:
        """Stop the work that :meth:`expect_image` began."""
        with self._machine.lock:
            ahead, self._machine.unpack_ahead = self._machine.unpack_ahead, None
        if ahead is not None:
            ahead.stop()

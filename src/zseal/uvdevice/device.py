"""/dev/uv in a protected guest: Linux' driver that passes requests on to the ultravisor.

Structures and numbers are those of Linux (include/uapi/asm/uvdevice.h of s390): big-endian, as on every such machine.
Needs nothing but Python's standard library, for it runs inside guests.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import os
import struct
from pathlib import Path

from zseal.errors import InputError, MissingDependencyError
from zseal.formats.uv_codes import Command
from zseal.uvdevice.interface import AttestationAnswer, UltravisorRefusedError

DEVICE = Path("/dev/uv")
PROTECTED_GUEST = Path("/sys/firmware/uv/prot_virt_guest")
PAGE_SIZE = 4096
MAX_SECRET_SIZE = 8192
_IOCTL_BASE = 0xC0407500  # _IOWR('u', 0, 64 bytes)
_CONTROL_BLOCK = struct.Struct(">IHHQI44x")
_ATTESTATION = struct.Struct(">QQQ256s16sIIIH2x")
_INFO = struct.Struct(">QQ")
_EXECUTED = 0x0001
_MORE_DATA = 0x0100


class UvdeviceFunction(enum.IntEnum):
    """What the device can be asked for."""

    INFO = 0
    ATTESTATION = 1
    ADD_SECRET = 2
    LIST_SECRETS = 3
    LOCK_SECRETS = 4
    RETRIEVE_SECRET = 5


_COMMANDS = {
    UvdeviceFunction.ATTESTATION: Command.RETR_ATTEST,
    UvdeviceFunction.ADD_SECRET: Command.ADD_SECRET,
    UvdeviceFunction.LIST_SECRETS: Command.LIST_SECRETS,
    UvdeviceFunction.LOCK_SECRETS: Command.LOCK_SECRETS,
    UvdeviceFunction.RETRIEVE_SECRET: Command.RETR_SECRET,
}


class Uvdevice:
    """The device (:class:`GuestUltravisor`); a context manager that closes it."""

    def __init__(self, path: Path = DEVICE) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise MissingDependencyError(
                f"there is no {path}",
                hint="run this in a protected guest, with the kernel module uvdevice loaded (modprobe uvdevice)",
            ) from error
        except OSError as error:
            raise InputError(f"cannot open the device: {error.strerror}", where=str(path)) from error

    def __enter__(self) -> Uvdevice:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def supported(self) -> frozenset[UvdeviceFunction]:
        """Return what driver and ultravisor offer; without an answer, as old drivers give none, attestation alone."""
        buffer = ctypes.create_string_buffer(_INFO.size)
        try:
            self._ioctl(UvdeviceFunction.INFO, ctypes.addressof(buffer), _INFO.size)
        except InputError:
            return frozenset({UvdeviceFunction.INFO, UvdeviceFunction.ATTESTATION})
        ioctls, _ = _INFO.unpack(buffer.raw)
        return frozenset(function for function in UvdeviceFunction if ioctls >> function & 1)

    def attest(
        self, arcb: bytes, *, user_data: bytes, measurement_size: int, additional_size: int
    ) -> AttestationAnswer:
        """Have the guest measured; raises UltravisorRefusedError, or InputError if the driver refuses."""
        request = ctypes.create_string_buffer(arcb, len(arcb))
        measurement = ctypes.create_string_buffer(measurement_size)
        additional = ctypes.create_string_buffer(max(1, additional_size))
        block = ctypes.create_string_buffer(
            _ATTESTATION.pack(
                ctypes.addressof(request),
                ctypes.addressof(measurement),
                ctypes.addressof(additional) if additional_size else 0,
                user_data,
                bytes(16),
                len(arcb),
                measurement_size,
                additional_size,
                len(user_data),
            ),
            _ATTESTATION.size,
        )
        self._call(UvdeviceFunction.ATTESTATION, ctypes.addressof(block), _ATTESTATION.size)
        answer = _ATTESTATION.unpack(block.raw)
        return AttestationAnswer(measurement.raw[: answer[6]], additional.raw[: answer[7]], answer[4])

    def add_secret(self, request: bytes) -> None:
        """Add a secret; raises UltravisorRefusedError, or InputError if the driver refuses."""
        buffer = ctypes.create_string_buffer(request, len(request))
        self._call(UvdeviceFunction.ADD_SECRET, ctypes.addressof(buffer), len(request))

    def list_secrets(self) -> bytes:
        """Return the list: up to four pages, one page with drivers that take no more."""
        for pages in (4, 1):
            buffer = ctypes.create_string_buffer(pages * PAGE_SIZE)
            try:
                self._call(UvdeviceFunction.LIST_SECRETS, ctypes.addressof(buffer), len(buffer))
            except InputError:
                if pages == 1:
                    raise
            else:
                break
        return buffer.raw

    def lock_secrets(self) -> None:
        """Lock the secret store; raises UltravisorRefusedError, or InputError if the driver refuses."""
        self._call(UvdeviceFunction.LOCK_SECRETS, 0, 0)

    def retrieve_secret(self, index: int, size: int) -> bytes:
        """Return the secret with this index, ``size`` bytes; the driver takes its first two bytes for the index."""
        buffer = ctypes.create_string_buffer(max(2, size))
        struct.pack_into(">H", buffer, 0, index)
        self._call(UvdeviceFunction.RETRIEVE_SECRET, ctypes.addressof(buffer), len(buffer))
        return buffer.raw[:size]

    def _call(self, function: UvdeviceFunction, address: int, length: int) -> None:
        rc, rrc = self._ioctl(function, address, length)
        if rc not in (_EXECUTED, _MORE_DATA):
            raise UltravisorRefusedError(_COMMANDS[function], rc, rrc)

    def _ioctl(self, function: UvdeviceFunction, address: int, length: int) -> tuple[int, int]:
        block = bytearray(_CONTROL_BLOCK.pack(0, 0, 0, address, length))
        try:
            fcntl.ioctl(self._descriptor, _IOCTL_BASE + function, block)
        except OSError as error:
            reason = error.strerror
            if error.errno == errno.ENOTTY:
                reason = "this kernel's driver does not offer it"
            elif error.errno == errno.EINVAL:
                reason = "the driver takes no request of this form"
            raise InputError(f"{function.name.lower().replace('_', ' ')}: {reason}", where=str(DEVICE)) from error
        _, rc, rrc, _, _ = _CONTROL_BLOCK.unpack(bytes(block))
        return rc, rrc


def in_protected_guest() -> bool:
    """Whether this is a protected guest; False if nothing says so."""
    try:
        return PROTECTED_GUEST.read_text().strip() == "1"
    except OSError:
        return False

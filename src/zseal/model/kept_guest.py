"""A played guest whose secret store is kept in a directory, from one command to the next.

The directory holds the requests as they came, which only the machine can open, the lock, and the guest's ID: opening it
plays them again. It stands for one running guest; a new directory is a new guest.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from zseal.arch.machine_model import MachineModel
from zseal.crypto.keyexchange import MachineKeys
from zseal.errors import FormatError, OutputError
from zseal.files import read_description, read_limited, write_atomic
from zseal.formats.request import MAX_REQUEST_SIZE
from zseal.model.played_guest import PlayedGuest
from zseal.secret import Secret

_DESCRIPTION = "guest.json"
_WRAPPING_KEY = "wrapping-key"
_LOCK = "locked"
_FORMAT = 1
_KIND = "zseal played guest"
_KEY_SIZE = 32


class KeptGuest(PlayedGuest):
    """The played guest in ``directory``, which is created if it does not exist.

    Raises as PlayedGuest does; InputError or OutputError if the directory cannot be used, FormatError if it holds
    something else.
    """

    def __init__(
        self, directory: Path, keys: MachineKeys, header: bytes, *, model: MachineModel = MachineModel.Z17
    ) -> None:
        self._directory = directory
        if not directory.exists():
            _create(directory)
        cuid = _read_cuid(directory)
        super().__init__(keys, header, model=model, cuid=cuid)
        try:
            store = self.configuration.secret_store
            store.wrapping_key = Secret(_sized(directory / _WRAPPING_KEY, _KEY_SIZE, "wrapping key"))
            for path in self._requests():
                super().add_secret(read_limited(path, MAX_REQUEST_SIZE, "add-secret request"))
            if (directory / _LOCK).exists():
                super().lock_secrets()
        except BaseException:
            self.close()
            raise

    def _requests(self) -> list[Path]:
        return sorted(self._directory.glob("[0-9][0-9][0-9][0-9][0-9].asr"))

    def add_secret(self, request: bytes) -> None:
        """Add a secret and keep the request; raises UltravisorRefusedError."""
        super().add_secret(request)
        write_atomic(self._directory / f"{len(self._requests()):05}.asr", request, overwrite=False)

    def lock_secrets(self) -> None:
        """Lock the secret store for good; raises UltravisorRefusedError."""
        super().lock_secrets()
        write_atomic(self._directory / _LOCK, b"", overwrite=True)


def _create(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise OutputError(f"cannot create the directory: {error.strerror}", where=str(directory)) from error
    description = {"format": _FORMAT, "kind": _KIND, "cuid": secrets.token_hex(16)}
    write_atomic(directory / _WRAPPING_KEY, secrets.token_bytes(_KEY_SIZE), overwrite=False)
    write_atomic(directory / _DESCRIPTION, json.dumps(description).encode() + b"\n", overwrite=False)


def _read_cuid(directory: Path) -> bytes:
    hint = "name a directory that does not exist yet"
    data = read_description(directory, _DESCRIPTION, 1 << 16, "played guest", hint)
    try:
        description = json.loads(data)
        if (description["kind"], description["format"]) != (_KIND, _FORMAT):
            raise FormatError("not a played guest of this version", where=str(directory), hint=hint)
        cuid = bytes.fromhex(description["cuid"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError("damaged description of a played guest", where=str(directory / _DESCRIPTION)) from error
    if len(cuid) != 16:
        raise FormatError("damaged description of a played guest", where=str(directory / _DESCRIPTION))
    return cuid


def _sized(path: Path, size: int, what: str) -> bytes:
    data = read_limited(path, 1 << 16, what)
    if len(data) != size:
        raise FormatError(f"the {what} has {len(data)} bytes, not {size}", where=str(path))
    return data

"""IBM's service that judges the firmware state of an answer."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable

from zseal.errors import InputError, UsageError
from zseal.version import __version__

DEFAULT_URL = "https://esupport.ibm.com/eccedge/ent/z"
_TIMEOUT = 120.0  # seconds
_MAX_ANSWER = 1 << 20
Post = Callable[[urllib.request.Request], tuple[int, bytes]]


def post(request: urllib.request.Request) -> tuple[int, bytes]:
    """Send ``request`` and return status and at most 1 MiB of the answer; raises OSError if there is none."""
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - the scheme is checked
            return answer.status, answer.read(_MAX_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_MAX_ANSWER)


class FirmwareService:
    """The service at ``url`` with version 1 or 2 of its interface."""

    def __init__(self, url: str = DEFAULT_URL, version: int = 1, *, post: Post = post) -> None:
        if not url.startswith(("https://", "http://")):
            raise UsageError("the address of the firmware service must begin with https:// or http://", where=url)
        self._url = f"{url.rstrip('/')}/hmrs/firmware/attestation/v{version}/verify"
        self._post = post

    def judge(self, state: bytes) -> str | None:
        """Return None for a valid firmware ``state`` of 320 bytes, otherwise the service's reason.

        Raises InputError if the service cannot be reached or does not answer as documented.
        """
        body = json.dumps({"version": "1.0", "payload": base64.b64encode(state).decode()}).encode()
        headers = {"Content-Type": "application/json", "x-client-id": "X", "User-Agent": f"zseal/{__version__}"}
        request = urllib.request.Request(self._url, data=body, headers=headers)  # noqa: S310 - the scheme is checked
        try:
            status, data = self._post(request)
        except OSError as error:
            raise InputError(f"cannot ask the firmware service: {error}", where=self._url) from error
        if status != 200:
            raise InputError(f"the firmware service answered with status {status}", where=self._url)
        try:
            answer = json.loads(data)
            valid = answer["valid"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError("the firmware service's answer is not the documented JSON", where=self._url) from error
        return None if valid is True else str(answer.get("reason") or "the service gave no reason")

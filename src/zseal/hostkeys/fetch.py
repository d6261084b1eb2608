"""Fetches CRLs from the distribution points that certificates name."""

from __future__ import annotations

import http.client
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from http import HTTPStatus
from typing import IO

from zseal.errors import ZsealError
from zseal.hostkeys.certificates import Certificate, Crl
from zseal.hostkeys.loading import parse_objects
from zseal.logs import logger
from zseal.version import __version__

_LOG = logger(__name__)

Fetch = Callable[[str], bytes]
"""Returns the body at an address, or raises ZsealError or OSError."""

SCHEMES = ("http://", "https://")
TIMEOUT = 3.0  # seconds for one address, as pvverify allows
MAX_SIZE = 16 << 20
# the certificates and documents of one run name a handful of addresses
MAX_FETCHES = 64

_CHUNK = 64 << 10


class FetchError(ZsealError):
    """No CRL could be fetched from an address."""


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http and https only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """Return the request that follows; raises FetchError for another kind of address."""
        if not newurl.lower().startswith(SCHEMES):
            fp.close()
            raise FetchError("redirected to an address that is neither http nor https", where=req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]  # stub: HTTPMessage


def fetch_url(url: str, *, timeout: float = TIMEOUT, max_size: int = MAX_SIZE) -> bytes:
    """Return the body at the http or https address ``url``, regardless of its status.

    A web page or nothing with a status of failure is a failure, too: a proxy that wants a password, for example. The
    environment's proxies are used. Raises FetchError if the whole body does not arrive within ``timeout`` seconds,
    or has more than ``max_size`` bytes.
    """
    if not url.lower().startswith(SCHEMES):
        raise FetchError("neither an http nor an https address", where=url)
    _LOG.info("fetching %s", url)
    answers: queue.SimpleQueue[bytes | FetchError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_fetch(url, timeout, max_size))
        except FetchError as error:
            answers.put(error)

    # A thread, because sockets limit only the time of each step: looking up the name, each of its addresses, each
    # redirection, each line of a header. A thread that is still waiting does not keep the program from ending.
    threading.Thread(target=ask, name="zseal-fetch", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout)
    except queue.Empty:
        raise FetchError(f"it takes too long: nothing arrived within {timeout:g} seconds", where=url) from None
    if isinstance(answer, FetchError):
        raise answer
    _LOG.debug("%s has %d bytes", url, len(answer))
    return answer


def _fetch(url: str, timeout: float, max_size: int) -> bytes:
    deadline = time.monotonic() + timeout
    opener = urllib.request.build_opener(_HttpOnly)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"zseal/{__version__}"})  # noqa: S310  checked above
        try:
            response = opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            if error.code // 100 == 3:
                error.close()
                raise FetchError(f"a redirection is not followed: {error.reason}", where=url) from error
            # some servers send the list with an odd status; its signature shows whether it is a list
            response = error
        with response:
            body = _read(response, url, deadline, max_size)
        # a page that explains the failure, or nothing
        if response.status >= HTTPStatus.BAD_REQUEST and body.lstrip()[:1] in (b"", b"<"):
            raise FetchError(f"the server or a proxy answered {response.status} {response.reason}", where=url)
        return body
    except urllib.error.URLError as error:
        raise FetchError(f"cannot fetch: {error.reason}", where=url) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"cannot fetch: {error or type(error).__name__}", where=url) from error


def _read(response: IO[bytes], url: str, deadline: float, max_size: int) -> bytes:
    body = bytearray()
    # read1 returns what has arrived, so a server that sends byte by byte cannot delay the reader beyond the deadline
    read = getattr(response, "read1", response.read)
    while chunk := read(_CHUNK):
        body += chunk
        if len(body) > max_size:
            raise FetchError(f"more than {max_size} bytes", where=url)
        if time.monotonic() > deadline:
            raise FetchError("it takes too long", where=url)
    if getattr(response, "length", 0):
        raise FetchError("cannot fetch: the connection ended early", where=url)
    return bytes(body)


class Downloader:
    """Fetches the CRLs of certificates, each address once; ``problems`` collects the failures."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._seen: dict[str, tuple[Crl, ...]] = {}
        self.problems: list[str] = []

    def crls_for(self, certificate: Certificate) -> tuple[Crl, ...]:
        """Return the CRLs at the first distribution point of ``certificate`` that has any, or an empty result."""
        for url in certificate.distribution_points:
            crls = self._crls_at(url)
            if crls:
                return crls
        return ()

    def _crls_at(self, url: str) -> tuple[Crl, ...]:
        if url not in self._seen:
            self._seen[url] = ()
            try:
                self._seen[url] = self._load(url)
            except (ZsealError, OSError) as error:
                self.problems.append(str(error))
        return self._seen[url]

    def _load(self, url: str) -> tuple[Crl, ...]:
        if not url.lower().startswith(SCHEMES):
            raise FetchError("not fetched: neither an http nor an https address", where=url)
        if len(self._seen) > MAX_FETCHES:
            raise FetchError(f"not fetched: more than {MAX_FETCHES} addresses", where=url)
        crls = parse_objects(self._fetch(url), url).crls
        if not crls:
            raise FetchError("there is no CRL at this address", where=url)
        return crls

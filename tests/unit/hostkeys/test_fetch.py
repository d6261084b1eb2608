"""Fetching CRLs: from a local HTTP server, with every kind of answer a stranger may give."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.unit.hostkeys.conftest import LISTS, Pki, pem
from tests.waiting import PATIENCE
from zseal.hostkeys.fetch import MAX_FETCHES, Downloader, FetchError, fetch_url
from zseal.hostkeys.results import Reason


class Handler(BaseHTTPRequestHandler):
    """Answers by path; ``bodies`` and the list of requests belong to the server."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.requests.append((self.path, self.headers.get("User-Agent", "")))
        if self.path.startswith("/redirect/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/redirect/"))
            self.end_headers()
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                try:
                    self.wfile.write(b"x")
                    self.wfile.flush()
                except OSError:
                    return
                if server.stopped.wait(0.02):
                    return
        elif self.path == "/slow-header":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Never: ")
            while not server.stopped.wait(0.02):
                self.wfile.write(b"ends")
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x")
        elif self.path == "/nonsense":
            self.wfile.write(b"what?\r\n\r\n")
        else:
            body = server.bodies.get(self.path)
            self.send_response(200 if body is not None and self.path != "/odd-status" else 404)
            self.end_headers()
            self.wfile.write(body if body is not None else b"<html>nothing here</html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server on a free port of this computer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stopped.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetches_a_body(server: Server) -> None:
    server.bodies["/list"] = b"body"
    assert fetch_url(f"{server.url}/list") == b"body"
    assert server.requests[0][1].startswith("zseal/")


def test_follows_redirections_over_http(server: Server) -> None:
    server.bodies["/list"] = b"body"
    assert fetch_url(f"{server.url}/redirect//list") == b"body"


def test_the_status_does_not_matter(server: Server) -> None:
    server.bodies["/odd-status"] = b"body"
    assert fetch_url(f"{server.url}/odd-status") == b"body"


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_other_schemes_are_refused(server: Server, target: str) -> None:
    with pytest.raises(FetchError, match="neither"):
        fetch_url(target)
    with pytest.raises(FetchError, match=r"neither|not followed"):
        fetch_url(f"{server.url}/redirect/{target}")


def test_redirections_end(server: Server) -> None:
    with pytest.raises(FetchError, match="not followed"):
        fetch_url(f"{server.url}/loop")


def test_limits_of_size_and_time(server: Server) -> None:
    server.bodies["/list"] = b"x" * 101
    with pytest.raises(FetchError, match="more than 100 bytes"):
        fetch_url(f"{server.url}/list", max_size=100)
    for path in ("/slow", "/slow-header"):
        with pytest.raises(FetchError, match="too long"):
            fetch_url(f"{server.url}{path}", timeout=0.2)


def test_the_time_limit_holds_while_a_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def never(*_: object) -> None:
        released.wait(PATIENCE)
        raise OSError("no such host")

    monkeypatch.setattr("socket.getaddrinfo", never)
    started = time.monotonic()
    with pytest.raises(FetchError, match=r"nothing arrived within 0\.2 seconds"):
        fetch_url("http://crl.test/list", timeout=0.2)
    assert time.monotonic() - started < 30
    released.set()


@pytest.mark.parametrize("path", ["/cut", "/nonsense"])
def test_broken_answers(server: Server, path: str) -> None:
    with pytest.raises(FetchError, match="cannot fetch"):
        fetch_url(server.url + path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://[", "http://", "http://host:port/", "http://a b/"])
def test_unreachable_and_malformed_addresses(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(FetchError):
        fetch_url(url)


def online(server: Server, *paths: str, local: bool = False) -> Pki:
    """A chain whose host-key document names ``paths`` of the server; without its CRL at hand unless ``local``."""
    points = tuple(path if ":" in path else server.url + path for path in paths)
    return Pki(host={"points": points}, **({} if local else {"signing_crl": None}))


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_verification_fetches_the_crl_of_a_document(server: Server, encoding: Encoding) -> None:
    server.bodies["/sk.crl"] = LISTS["signing_crl"].crl("x").raw.public_bytes(encoding)
    pki = online(server, "/sk.crl")
    assert pki.check(offline=False).accepted
    offline = pki.check(offline=True).failure
    assert offline is not None
    assert offline.reason is Reason.NO_VALID_CRL
    assert "`offline=True`" in offline.hint


def test_next_address_is_tried(server: Server) -> None:
    server.bodies["/sk.crl"] = pem([LISTS["signing_crl"].crl("x")])
    pki = online(server, "ldap://x/", "/missing", "http://127.0.0.1:1/", "/sk.crl", "/not-reached")
    assert pki.check(offline=False).accepted
    assert [path for path, _ in server.requests] == ["/missing", "/sk.crl"]


def test_fetched_revocation_counts_beside_a_local_crl(server: Server) -> None:
    server.bodies["/sk.crl"] = pem([Pki(signing_crl={"revoked": (4,)}).crls[2]])
    failure = online(server, "/sk.crl", local=True).check(offline=False).failure
    assert failure is not None
    assert failure.reason is Reason.REVOKED


def test_failed_downloads_are_told(server: Server) -> None:
    failure = online(server, "/missing").check(offline=False).failure
    assert failure is not None
    assert "/missing: the server or a proxy answered 404 Not Found" in failure.message


def test_an_answer_that_is_something_else_is_told(server: Server) -> None:
    server.bodies["/portal"] = b"<html>log in</html>"
    failure = online(server, "/portal").check(offline=False).failure
    assert failure is not None
    assert "/portal: there is no CRL at this address" in failure.message


def test_crls_of_the_chain_are_fetched(server: Server) -> None:
    server.bodies["/i.crl"] = pem([LISTS["intermediate_crl"].crl("x")])
    server.bodies["/r.crl"] = pem([LISTS["root_crl"].crl("x")])
    pki = Pki(
        signing={"points": (f"{server.url}/i.crl",)},
        intermediate={"points": (f"{server.url}/r.crl",)},
        intermediate_crl=None,
        root_crl=None,
    )
    assert pki.check(offline=False).accepted


def test_every_address_is_fetched_once(server: Server) -> None:
    server.bodies["/sk.crl"] = pem([LISTS["signing_crl"].crl("x")])
    pki = online(server, "/missing", "/sk.crl")
    assert pki.report(pki.document, pki.document, pki.document, offline=False).accepted
    assert len(server.requests) == 2


def test_nothing_is_fetched_for_a_wrong_kind_of_key(server: Server) -> None:
    pki = Pki(host={"key": "p256:h", "points": (f"{server.url}/sk.crl",)})
    assert not pki.check(offline=False).accepted
    assert server.requests == []


def test_number_of_downloads_is_limited() -> None:
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        raise OSError("no network")

    downloader = Downloader(fetch)
    for number in range(20):
        points = tuple(f"http://crl.test/{number}/{item}" for item in range(40))
        assert downloader.crls_for(Pki(host={"points": points}).parts["host"]) == ()
    assert len(asked) == MAX_FETCHES
    assert "more than" in downloader.problems[-1]

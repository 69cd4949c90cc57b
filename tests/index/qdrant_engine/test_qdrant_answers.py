"""A Qdrant that is down, hangs, refuses or is something else is told in words, each within its time."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest

from eigenlens.index.errors import EngineUnavailableError, SearchError
from eigenlens.index.qdrant_engine.server import QdrantServer

# Asked for without importing it, which takes a second of every process that collects the tests.
pytestmark = pytest.mark.skipif(find_spec("qdrant_client") is None, reason="the extra `qdrant` is not installed")

QUESTIONS: dict[str, Callable[[QdrantServer], object]] = {
    "version": QdrantServer.version,
    "names": QdrantServer.names,
    "state": lambda server: server.state("shop"),
    "query": lambda server: server.query("shop", ['{"query":[1],"limit":1}']),
    "create": lambda server: server.create("shop", [], {}),
    "drop": lambda server: server.drop("shop"),
}
IS_QDRANT = b'{"title":"qdrant","version":"1.16.0"}'


class Answers(BaseHTTPRequestHandler):
    """Tells its version at its root, and answers the same to all else."""

    protocol_version = "HTTP/1.1"
    root, status, body = IS_QDRANT, 200, b""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = (200, self.root) if self.path == "/" else (self.status, self.body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def answers() -> Iterator[tuple[type[Answers], QdrantServer]]:
    """What a server answers, to be set, and the server."""

    class OfOneTest(Answers):
        pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), OfOneTest)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server = QdrantServer(f"http://127.0.0.1:{http.server_address[1]}")
    yield OfOneTest, server
    server.close()
    http.shutdown()
    http.server_close()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>", "does not answer as a Qdrant does"),
        (200, b"\xff", "does not answer as a Qdrant does"),
        (200, b"null", "does not answer as a Qdrant does"),
        (200, b'{"status": "ok"}', "does not answer as a Qdrant does"),
        (200, b'{"result": "x"}', "does not answer as a Qdrant does"),
        (200, b'{"result": [{"points": [{"id": "x", "score": 1}]}]}', "does not answer as a Qdrant does"),
        (200, b'{"result": []}', "does not answer as a Qdrant does"),
        (302, b"", r"does not answer as a Qdrant does \(status 302\)"),
        (404, b"nginx", r"does not answer as a Qdrant does \(status 404 nginx\); correct the backend's address"),
        (403, b"no", "refuses the key in EIGENLENS_BACKEND_API_KEY"),
        (404, b'{"status": {"error": "no collection"}}', r"\(no collection\): `eigenlens build` makes it"),
        (429, b"", "takes no more requests now"),
        (500, b"oops", r"has no answer \(status 500 oops\)"),
    ],
)
def test_an_answer_that_is_none_is_told_in_words(
    answers: tuple[type[Answers], QdrantServer], status: int, body: bytes, message: str
) -> None:
    handler, server = answers
    handler.status, handler.body = status, body
    for question in list(QUESTIONS.values())[1:]:
        with pytest.raises(EngineUnavailableError, match=message):
            question(server)


@pytest.mark.parametrize("root", [b"<html>", b"{}", b'{"title":"qdrant","version":"dev"}'])
def test_what_has_no_version_of_qdrant_is_none(answers: tuple[type[Answers], QdrantServer], root: bytes) -> None:
    handler, server = answers
    handler.root = root
    for question in QUESTIONS.values():
        with pytest.raises(EngineUnavailableError, match="does not answer as a Qdrant does"):
            question(server)


def test_an_old_qdrant_is_refused(answers: tuple[type[Answers], QdrantServer]) -> None:
    handler, server = answers
    handler.root = IS_QDRANT.replace(b"1.16.0", b"1.9.2")
    with pytest.raises(EngineUnavailableError, match=r"is version 1\.9\.2; 1\.16 or newer is needed"):
        server.names()


def test_a_qdrant_that_hangs_or_is_down_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eigenlens.index.qdrant_engine.server._TIMEOUT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        server = QdrantServer(f"http://127.0.0.1:{hanging.getsockname()[1]}")
        for question in ("state", "create"):  # a build has ten minutes for each answer but the first
            with pytest.raises(EngineUnavailableError, match=r"is not reached \(timed out\)"):
                QUESTIONS[question](server)
    with pytest.raises(EngineUnavailableError, match="is not reached"):
        server.names()


@pytest.mark.parametrize(
    "url", ["", "qdrant.example", "localhost:6333", "http://", "ftp://a", "http://a:b", "http://[::1", "http://a b"]
)
def test_what_is_no_address_is_refused_with_one(url: str) -> None:
    with pytest.raises(SearchError, match=re.escape(f"'{url}' is no address of a Qdrant; give one such as http://")):
        QdrantServer(url)


@pytest.mark.parametrize("key", ["schlüssel", "key\n"])
def test_a_key_that_no_header_can_have_is_refused_and_not_told(key: str) -> None:
    with pytest.raises(SearchError, match="the key in EIGENLENS_BACKEND_API_KEY has characters") as refusal:
        QdrantServer("http://qdrant.example", api_key=key)
    assert key not in str(refusal.value)

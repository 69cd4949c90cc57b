"""Kept connections to a Qdrant: used again, replaced where they ended, and led through the proxy that is named."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from eigenlens.index.qdrant_engine.connections import Connections

BODY, HEADERS = b'{"a":1}', {"Content-Type": "application/json"}


class _Server(ThreadingHTTPServer):
    """Answers with what was asked, and remembers who asked.

    Attributes:
        asked: port of the other end, target and authorisation for a proxy, of each request.
        ends: whether it closes a connection after an answer without saying so.
        is_silent: whether it closes a connection without an answer.
    """

    daemon_threads = True
    ends = is_silent = False

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.client_address[1], self.path, self.headers["Proxy-Authorization"]))
        if not self.server.is_silent:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        self.close_connection = self.server.ends or self.server.is_silent

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@contextmanager
def running() -> Iterator[tuple[_Server, str]]:
    with _Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def send(connections: Connections) -> tuple[int, bytes]:
    answer, content = connections.send("POST", "/points", BODY, HEADERS, timeout_s=10.0)
    return answer.status, content


def test_a_connection_is_used_again_and_an_ended_one_is_not() -> None:
    with running() as (server, address):
        connections = Connections(f"http://{address}/base/")
        assert [send(connections) for _ in range(3)] == [(200, BODY)] * 3
        assert len({port for port, _, _ in server.asked}) == 1
        assert {target for _, target, _ in server.asked} == {"/base/points"}
        server.ends = True
        assert [send(connections) for _ in range(3)] == [(200, BODY)] * 3
        assert len({port for port, _, _ in server.asked}) == 3
        server.is_silent = True
        with pytest.raises((ConnectionError, HTTPException)):
            send(connections)
        server.is_silent = False
        assert send(connections) == (200, BODY)
        connections.close()


def test_threads_have_connections_of_their_own() -> None:
    with running() as (server, address):
        connections = Connections(f"http://{address}")
        answers: list[tuple[int, bytes]] = []
        threads = [
            threading.Thread(target=lambda: answers.extend(send(connections) for _ in range(20))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [(200, BODY)] * 160
        assert len({port for port, _, _ in server.asked}) <= 8
        connections.close()


def test_a_proxy_of_the_environment_is_asked_for_the_whole_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as (server, address):
        monkeypatch.setenv("http_proxy", f"http://me:se%40cret@{address}")
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        connections = Connections("http://qdrant.example:6333")
        assert send(connections) == (200, BODY)
        connections.close()
        direct = Connections(f"http://{address}")
        assert send(direct) == (200, BODY)
        direct.close()
        assert [asked[1:] for asked in server.asked] == [
            ("http://qdrant.example:6333/points", "Basic bWU6c2VAY3JldA=="),
            ("/points", None),
        ]

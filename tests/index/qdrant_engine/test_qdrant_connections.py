"""Kept connections to a Qdrant: used again, replaced where they ended, encrypted, and led through a proxy."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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

    def do_CONNECT(self) -> None:
        """Pass bytes on, both ways, until the server ends."""
        self.server.asked.append((self.client_address[1], self.path, self.headers["Proxy-Authorization"]))
        host, port = self.path.split(":")
        with socket.create_connection((host, int(port))) as other:
            self.send_response(200)
            self.end_headers()
            threading.Thread(target=_pass_on, args=(self.connection, other), daemon=True).start()
            _pass_on(other, self.connection)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while some := source.recv(65_536):
            target.sendall(some)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


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
        for _ in range(3):
            assert send(connections) == (200, BODY)
            select.select([kept.sock for kept in connections._kept], [], [], 10.0)  # until the server's end arrives
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


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_an_encrypted_connection_goes_through_a_proxy_and_to_a_trusted_server_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with running() as (server, address), running() as (proxy, proxy_address):
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with pytest.raises(ssl.SSLCertVerificationError):
            send(Connections(f"https://{address}"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        direct = Connections(f"https://{address}/base")
        assert [send(direct) for _ in range(2)] == [(200, BODY)] * 2
        direct.close()
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("https_proxy", f"http://someone:se%3Acret@{proxy_address}")
        led = Connections(f"https://{address}/base")
        assert [send(led) for _ in range(2)] == [(200, BODY)] * 2
        led.close()
        assert [(target, secret) for _, target, secret in proxy.asked] == [(address, "Basic c29tZW9uZTpzZTpjcmV0")]
        assert [target for _, target, _ in server.asked] == ["/base/points"] * 4
        assert {secret for _, _, secret in server.asked} == {None}, "the server is not told what the proxy is"

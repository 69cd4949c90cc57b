"""Kept connections to an HTTP server, for requests that are sent often: httpx works several times as long."""

from __future__ import annotations

import select
import socket
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

# As many threads as search at once; others get a new connection for each request.
_MAX_KEPT = 64


class Connections:
    """Connections to one server, for several threads; through the proxy that the environment names, if any.

    connections = Connections("http://127.0.0.1:6333")
    answer, content = connections.send("POST", "/collections/shop/points/query", body, headers, timeout_s=10.0)
    """

    def __init__(self, url: str) -> None:
        """Name a server; the first request connects."""
        self._kept: list[HTTPConnection] = []
        parts = urlsplit(url)
        self._is_secure, self._host = parts.scheme == "https", parts.hostname or ""
        self._port = parts.port or (443 if self._is_secure else 80)
        self._prefix = parts.path.rstrip("/")
        proxies = {} if proxy_bypass(self._host) else getproxies()
        address = proxies.get(parts.scheme) or proxies.get("all")
        self._proxy = None if address is None else urlsplit(address)
        if self._proxy is not None and not self._is_secure:  # a proxy takes the whole address
            self._prefix = f"http://{parts.netloc}{self._prefix}"

    def send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float
    ) -> tuple[HTTPResponse, bytes]:
        """Return the answer to a request, of which its status and headers are known, and its content.

        Args:
            timeout_s: for connecting, and for each part that is sent or received.

        Raises: OSError, if the server is not reached or does not answer in time; HTTPException, for no answer of HTTP.
        """
        connection = self._take(timeout_s)
        try:
            connection.request(method, self._prefix + path, body, {**headers, **self._proxy_headers})
            answer = connection.getresponse()
            content = answer.read()
        except BaseException:
            connection.close()
            raise
        if not answer.will_close and len(self._kept) < _MAX_KEPT:
            self._kept.append(connection)
        else:
            connection.close()
        return answer, content

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._kept:
            self._kept.pop().close()

    def __del__(self) -> None:
        self.close()

    def _take(self, timeout_s: float) -> HTTPConnection:
        """Return a connection that was kept and is still open, or a new one."""
        with suppress(IndexError):  # none is left
            while True:
                connection = self._kept.pop()
                if connection.sock is not None and not _is_ended(connection.sock):
                    connection.sock.settimeout(timeout_s)
                    return connection
                connection.close()
        connection = self._new(timeout_s)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _new(self, timeout_s: float) -> HTTPConnection:
        host, port = self._host, self._port
        if self._proxy is not None:
            host, port = self._proxy.hostname or "", self._proxy.port or 80
        if not self._is_secure:
            return HTTPConnection(host, port, timeout=timeout_s)
        from httpx import create_ssl_context  # with the certificates that the client trusts

        connection = HTTPSConnection(host, port, timeout=timeout_s, context=create_ssl_context())
        if self._proxy is not None:
            connection.set_tunnel(self._host, self._port, self._credentials)
        return connection

    @property
    def _proxy_headers(self) -> Mapping[str, str]:
        return {} if self._is_secure else self._credentials

    @property
    def _credentials(self) -> dict[str, str]:
        """What a proxy asks for, if its address has a name and a password."""
        if self._proxy is None or self._proxy.username is None:
            return {}
        pair = f"{unquote(self._proxy.username)}:{unquote(self._proxy.password or '')}"
        return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _is_ended(sock: socket.socket) -> bool:
    """Whether the other end closed a connection on which nothing is awaited."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))

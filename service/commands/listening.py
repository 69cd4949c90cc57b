"""The socket that a service listens on, and the address that it is called by."""

from __future__ import annotations

import socket

from eigenlens.service.errors import ServiceError

# Hosts that stand for all addresses of a machine, and one of these: nobody can open the former.
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

_BACKLOG = 2048  # as the server's own


def address_of(host: str, port: int | str, *, scheme: str = "http") -> str:
    """Return an address that a service can be opened at, such as http://[::1]:8080."""
    host = LOOPBACK_OF.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at the address. Raises: ServiceError, if that fails.

    Whoever calls from now on waits for the server, and is not refused: the address is told before that is up.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The event loop turns Nagle's algorithm off only for a socket that names its protocol; with it, answers take
        # 40 ms longer.
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    except OSError as error:
        raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror}; give another --host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        return listener
    except OSError as error:
        listener.close()
        raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error

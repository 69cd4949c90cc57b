"""Several workers on one port: a connection goes to a worker that has the fewest.

The workers have one listening socket, so that none of its connections is lost when a worker ends. Left to chance, one
worker would get most of the clients, and the others would be idle.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from eigenlens.service.telemetry.metrics import MULTIPROCESS_DIR

_FILE = "connections"
_BYTES = 8
_NONE = -1
# So long a worker waits for another to take the next connection, for each that it has more; and at most so long, since
# the other may hang. On a busy machine a worker that has none yet may not run for some milliseconds.
_PATIENCE_S, _MAX_PATIENCE_S = 0.001, 0.02
# Pause after a connection could not be taken, such as for want of file descriptors.
_PAUSE_S = 1.0


def make_room(directory: Path, *, workers: int) -> None:
    """Make the file in which workers tell each other how many connections they have; twice as many during restarts."""
    (directory / _FILE).write_bytes(_NONE.to_bytes(_BYTES, "little", signed=True) * 2 * workers)


class Loads:
    """The numbers of connections of all workers. A worker that ends, however it does, leaves its place to the next."""

    def __init__(self, path: Path) -> None:
        """Take a free place in the file; without one, this worker's number is not told."""
        self._file = path.open("r+b")
        self._counts = memoryview(mmap.mmap(self._file.fileno(), 0)).cast("q")
        self._place: int | None = next((place for place in range(len(self._counts)) if self._take(place)), None)
        self.tell(0)

    def _take(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)  # until this process ends
        except OSError:
            return False
        return True

    def tell(self, count: int) -> None:
        """Tell the other workers how many connections this one has."""
        if self._place is not None:
            self._counts[self._place] = count

    def leave(self) -> None:
        """Tell the other workers that this one takes no more connections."""
        self.tell(_NONE)
        self._place = None
        self._file.close()

    def lead(self, count: int) -> int:
        """Return how many of `count` connections are more than the other worker with the fewest has; 0 if none are."""
        others = (other for place, other in enumerate(self._counts) if place != self._place and other != _NONE)
        return max(0, count - min(others, default=count))


class SharedPortLoop(uvloop.Loop):
    """uvloop's event loop, whose server takes one connection at a time, and leaves it to workers with fewer."""

    async def create_server(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        """Listen on the socket that the workers share."""
        listener, directory = options.get("sock"), os.environ.get(MULTIPROCESS_DIR)
        if listener is None or directory is None:
            return await super().create_server(protocol_factory, *args, **options)
        return _SharedServer(self, protocol_factory, listener, options, loads=Loads(Path(directory) / _FILE))


class _SharedServer:
    """What `create_server` returns, as far as uvicorn asks for it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        new_protocol: Callable[[], Any],
        listener: socket.socket,
        options: dict[str, Any],
        *,
        loads: Loads,
    ) -> None:
        self._loop, self._new_protocol, self._listener, self._loads = loop, new_protocol, listener, loads
        self._tls: ssl.SSLContext | None = options.get("ssl")
        self._connections: set[Any] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        listener.listen(options.get("backlog", 100))
        loop.add_reader(listener.fileno(), self._on_connection)

    def close(self) -> None:
        """Take no more connections."""
        self._loads.leave()
        self._loop.remove_reader(self._listener.fileno())
        if self._timer is not None:
            self._timer.cancel()

    async def wait_closed(self) -> None:
        """Return when no connection is being opened."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _on_connection(self) -> None:
        count = self._count()
        self._loads.tell(count)
        lead = self._loads.lead(count)
        if lead:
            self._pause(min(lead * _PATIENCE_S, _MAX_PATIENCE_S))
        else:
            self._accept()

    def _count(self) -> int:
        return len(self._connections) + len(self._opening)

    def _pause(self, seconds: float) -> None:
        """Leave waiting connections to other workers for a while, then take one."""
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._loop.add_reader(self._listener.fileno(), self._on_connection)
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another worker has it, or it is gone
            return
        except OSError as error:
            self._loop.call_exception_handler({"message": "a connection could not be taken", "exception": error})
            self._pause(_PAUSE_S)
            return
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        self._loads.tell(self._count())

    async def _open(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            _, protocol = await self._loop.connect_accepted_socket(self._new_protocol, connection, ssl=self._tls)
        except OSError:  # the client left, or does not speak TLS
            connection.close()
        else:
            self._connections = protocol.connections

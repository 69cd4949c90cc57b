"""Several workers on one port: each gets its share of the connections."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from eigenlens.service.commands.listening import listen
from eigenlens.service.http.shared_port import Loads, make_room
from eigenlens.service.telemetry.metrics import MULTIPROCESS_DIR

# Tells its number to whoever connects.
_WORKER = """
import asyncio, os, socket, sys
from eigenlens.service.http.shared_port import SharedPortLoop

class Number(asyncio.Protocol):
    connections = set()
    def connection_made(self, transport):
        self.connections.add(self)
        transport.write(str(os.getpid()).encode())
    def connection_lost(self, error):
        self.connections.discard(self)

async def main():
    listener = socket.socket(fileno=int(sys.argv[1]))
    server = await asyncio.get_running_loop().create_server(Number, sock=listener)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()
    await server.wait_closed()

with asyncio.Runner(loop_factory=SharedPortLoop) as runner:
    runner.run(main())
"""


@contextlib.contextmanager
def worker(listener: socket.socket, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(listener.fileno())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[listener.fileno()],
        env=os.environ | {MULTIPROCESS_DIR: str(directory)},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


def shares(address: tuple[str, int], count: int, stack: contextlib.ExitStack) -> Counter[int]:
    """Open so many connections at once; return how many each process took."""
    clients = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in range(count)]
    return Counter(int(client.recv(20)) for client in clients)


def test_connections_go_to_the_worker_with_the_fewest_and_none_is_lost_with_one_that_dies(tmp_path: Path) -> None:
    make_room(tmp_path, workers=2)
    with listen("127.0.0.1", 0) as listener, contextlib.ExitStack() as stack:
        address = listener.getsockname()[:2]
        first, second = (stack.enter_context(worker(listener, tmp_path)) for _ in range(2))
        share = shares(address, 40, stack)
        assert set(share) == {first.pid, second.pid}
        assert max(share.values()) <= 23  # a busy machine may let one of them wait too long
        second.kill()
        second.wait()
        assert shares(address, 6, stack) == {first.pid: 6}
        third = stack.enter_context(worker(listener, tmp_path))
        assert shares(address, 10, stack)[third.pid] >= 8  # it has none yet, the first has 26 or so


def test_a_place_is_free_again_when_its_worker_left(tmp_path: Path) -> None:
    make_room(tmp_path, workers=1)
    loads = Loads(tmp_path / "connections")
    assert loads.lead(5) == 0
    loads._counts[1] = 3  # what another process tells
    assert loads.lead(3) == 0
    assert loads.lead(4) == 1
    loads._counts[1] = -1
    assert loads.lead(4) == 0
    loads.tell(7)
    loads.leave()
    assert loads._counts.tolist() == [-1, -1]

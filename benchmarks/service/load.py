"""A load generator: a small process that sends prepared requests over keep-alive connections and times the answers.

It shares the cores with the service that it measures, so it does as little as it can: raw sockets, requests that are
bytes already, and of an answer only its status, its length and its end are looked at. Where it may, it goes before the
service on these cores: clients are elsewhere, and what they wait for is not that this process gets its turn.

An answer to several searches tells at its end how many of them failed; these are counted too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

_BATCH = b"batch;desc="
_FAILED = b'"failed":'
_NICENESS = -10


def request_bytes(path: str, photo: bytes, *, form: bool) -> bytes:
    """A POST of a photograph, as the body itself or as a form's file `image`."""
    kind = b"image/jpeg"
    if form:
        line = b"a-boundary-of-the-load-generator"
        head = b'--%s\r\nContent-Disposition: form-data; name="image"; filename="q.jpg"\r\nContent-Type: %s\r\n\r\n'
        photo = head % (line, kind) + photo + b"\r\n--%s--\r\n" % line
        kind = b"multipart/form-data; boundary=" + line
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), kind, len(photo)) + photo


def json_request(path: str, body: bytes) -> bytes:
    """A POST of a JSON body."""
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), len(body)) + body


class Load:
    """What is sent, and what came back."""

    def __init__(self, requests: Sequence[bytes], *, port: int, seed: int) -> None:
        self.requests, self.port = requests, port
        self.random = random.Random(seed)
        self.statuses: Counter[int] = Counter()
        self.latencies_s: list[float] = []
        self.batches: Counter[int] = Counter()
        self.lost = self.answers = 0
        # Searches that failed in answers to several: of all answers, and of those that count.
        self.failed = self.failed_counted = 0
        self.counting = False
        self.next = random.Random(seed).randrange(len(requests))

    def request(self) -> bytes:
        """The next request, one after the other."""
        self.next += 1
        return self.requests[self.next % len(self.requests)]

    def answered(self, status: int, took_s: float, head: bytes, *, failed: int) -> None:
        """Count an answer, in which some searches failed; of one in sixteen, also count the size of its batch."""
        self.answers += 1
        self.failed += failed
        if not self.counting:
            return
        self.failed_counted += failed
        self.statuses[status] += 1
        if status == 200:
            self.latencies_s.append(took_s)
            if len(self.latencies_s) % 16 == 0 and (start := head.find(_BATCH)) >= 0:
                self.batches[int(head[start + len(_BATCH) :].split(b"\r", 1)[0].split(b",", 1)[0])] += 1


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request in flight."""

    def __init__(self, load: Load, idle: deque[Connection] | None) -> None:
        """Send the next request as soon as one is answered (closed loop), or wait in `idle` for it (open loop)."""
        self.load, self.idle = load, idle
        self.buffer = b""
        self.sent_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing
        self.transport.set_write_buffer_limits(high=64 * 2**20)
        if self.idle is None:
            self.send(time.perf_counter())

    def send(self, due: float) -> None:
        """Send the next request; it is timed from when it was due."""
        self.sent_at = due
        self.transport.write(self.load.request())

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r", 1)[0])
        if len(self.buffer) < end + 4 + length:
            return
        told = self.buffer.rfind(_FAILED, end)
        failed = 0 if told < 0 else int(self.buffer[told + len(_FAILED) :].split(b",", 1)[0])
        self.buffer = b""
        now = time.perf_counter()
        assert self.sent_at is not None
        sent_at, self.sent_at = self.sent_at, None
        self.load.answered(int(head[9:12]), now - sent_at, head, failed=failed)
        if b"connection: close" in head:
            self.transport.close()
        elif self.idle is None:
            self.send(now)
        else:
            self.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.sent_at is not None and self.load.counting:
            self.load.lost += 1
        self.sent_at = None


async def closed_loop(load: Load, *, concurrency: int, warm_s: float, seconds: float) -> float:
    """`concurrency` clients, each with its next request as soon as it is answered. Returns: seconds that counted."""
    loop = asyncio.get_running_loop()
    for _ in range(concurrency):
        await loop.create_connection(lambda: Connection(load, None), "127.0.0.1", load.port)
    await asyncio.sleep(warm_s)
    load.counting, started = True, time.perf_counter()
    await asyncio.sleep(seconds)
    load.counting = False
    return time.perf_counter() - started


async def open_loop(
    load: Load, *, rate: float, connections: int, from_due: bool, warm_s: float, seconds: float
) -> float:
    """Requests at random moments, `rate` a second in the mean, whether or not earlier ones were answered.

    A request that finds all connections taken waits for one. It is timed from when it was due, or from when it was
    sent: with far too much load the first would tell how long this process keeps it.
    """
    loop = asyncio.get_running_loop()
    idle: deque[Connection] = deque()
    for _ in range(connections):
        _, made = await loop.create_connection(lambda: Connection(load, idle), "127.0.0.1", load.port)
        idle.append(made)
    due: deque[float] = deque()
    started = time.perf_counter()
    at, begin, end = started, started + warm_s, started + warm_s + seconds
    while (now := time.perf_counter()) < end:
        load.counting = now >= begin
        while at <= now:
            due.append(at)
            at += load.random.expovariate(rate)
        while due and idle:
            connection = idle.popleft()
            if connection.transport.is_closing():
                _, connection = await loop.create_connection(lambda: Connection(load, idle), "127.0.0.1", load.port)
            was_due = due.popleft()
            connection.send(was_due if from_due else time.perf_counter())
        await asyncio.sleep(max(0.0, min(at - now, 0.001)) if idle else 0.001)
    return time.perf_counter() - begin


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """One measurement, as the process that sends it describes it."""
    bodies = [path.read_bytes() for path in sorted(Path(spec["bodies"]).iterdir())]
    if spec["json"]:
        requests = [json_request(spec["path"], body) for body in bodies]
    else:
        requests = [request_bytes(spec["path"], photo, form=spec["form"]) for photo in bodies]
    load = Load(requests, port=spec["port"], seed=spec["seed"])
    times = {"warm_s": spec["warm_s"], "seconds": spec["seconds"]}
    if spec["load"] == "closed":
        measured = closed_loop(load, concurrency=spec["concurrency"], **times)
    else:
        from_due = spec["load"] == "open"
        measured = open_loop(load, rate=spec["rate"], connections=spec["concurrency"], from_due=from_due, **times)
    with contextlib.suppress(PermissionError):  # only the administrator may
        os.nice(_NICENESS)
    before = time.process_time()
    seconds = _runner()(measured)
    return {
        "seconds": seconds,
        "statuses": {str(status): count for status, count in load.statuses.items()},
        "latencies_ms": [round(1000 * s, 3) for s in load.latencies_s],
        "batches": {str(size): count for size, count in sorted(load.batches.items())},
        "lost": load.lost,
        "answers": load.answers,
        "failed": load.failed,
        "failed_counted": load.failed_counted,
        "cpu_s": time.process_time() - before,
    }


def _runner() -> Any:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run
    return uvloop.run


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)

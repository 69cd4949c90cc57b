"""A service in a process of its own, on a free port."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_READY_S = 120.0
_STOP_S = 30.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Server:
    """A running server: its process and its address, such as http://127.0.0.1:8080."""

    process: subprocess.Popen[bytes]
    address: str

    @property
    def port(self) -> int:
        """Return its port on 127.0.0.1."""
        return int(self.address.rpartition(":")[2])

    def cpu_s(self) -> float:
        """Return the processor time that it and its workers took so far, of all their threads."""
        return sum(map(_cpu_s, self.pids()))

    def pids(self) -> list[int]:
        """Return the ids of its process and of all below it."""
        pids = [self.process.pid]
        for pid in pids:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += map(int, children.read_text().split())
        return pids

    def memory_mb(self) -> float:
        """Return its resident memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 1e6


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_service(gallery: Path, log: Path, *, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Serve a gallery from when it answers to the end of the block. Raises: RuntimeError, if it does not start."""
    process, address = start_service(gallery, log, environment=environment)
    with stopping(process):
        yield Server(process, address)


@contextmanager
def stopping(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process, and wait for it, at the end of the block."""
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=_STOP_S)


def start_service(
    gallery: Path, log: Path, *, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """Serve a gallery and return, when it answers, its process and its address. The caller ends the process.

    Args:
        log: where what it says goes.
        environment: of the process; this one's when None.

    Raises: RuntimeError, with the service's own words, if it does not start.
    """
    workers = int((environment or os.environ).get("EIGENLENS_WORKERS", "1"))
    command = [sys.executable, "-m", "eigenlens", "serve", "--gallery", str(gallery), "--port", "0"]
    with log.open("wb") as f:
        process = subprocess.Popen(command, stderr=f, env=environment)
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        text = log.read_text()
        addresses = [word for word in text.split() if word.startswith("http://127.0.0.1:")]
        if addresses and text.count("Application startup complete") == workers:
            return process, addresses[0]
        time.sleep(0.01)
    process.kill()
    raise RuntimeError(f"the service did not start: {log.read_text()}")

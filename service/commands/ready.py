"""`eigenlens ready`: ask whether a service can search; the health check of containers, so it imports little."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from eigenlens.service.commands.listening import address_of

EPILOG = """examples:
  eigenlens ready                              exit status 0 once the service at http://127.0.0.1:8080 can search
  eigenlens ready --live --url http://[::1]:9000    whether its process answers at all

No proxy is asked, and a certificate is not verified: it is that of this machine's own service.
exit status: 0 yes, 2 wrong usage, 5 no"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--url",
        default=os.environ.get("EIGENLENS_URL") or _own_address(),
        help="address of the service (default: EIGENLENS_URL, or by EIGENLENS_HOST and EIGENLENS_PORT: %(default)s)",
    )
    parser.add_argument("--live", action="store_true", help="ask only whether the process answers")
    parser.add_argument("--timeout-s", type=float, default=4.0, help="seconds to wait (default: %(default)g)")


def _own_address() -> str:
    scheme = "https" if os.environ.get("EIGENLENS_TLS_CERTIFICATE") else "http"
    host, port = os.environ.get("EIGENLENS_HOST", "127.0.0.1"), os.environ.get("EIGENLENS_PORT", "8080")
    return address_of(host, port, scheme=scheme)


def run(args: argparse.Namespace) -> int:
    """Ask the probe, and print the answer if it is no. Returns: the exit status."""
    try:
        status, body = _get(args.url, "/livez" if args.live else "/readyz", timeout_s=args.timeout_s)
    except (OSError, HTTPException, ValueError) as error:
        print(f"eigenlens: no service answers at {args.url}: {error}", file=sys.stderr)
        return 5
    if status == 200:
        return 0
    print(f"eigenlens: the service at {args.url} answers {status}: {body}", file=sys.stderr)
    return 5


def _get(url: str, path: str, *, timeout_s: float) -> tuple[int, str]:
    """Return status and body of a path below an address. Raises: ValueError, for no address; as http.client."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ValueError("give an address such as http://127.0.0.1:8080")
    connection: HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = HTTPSConnection(parts.hostname, parts.port, timeout=timeout_s, context=context)
    else:
        connection = HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path.rstrip("/") + path)
        answer = connection.getresponse()
        return answer.status, answer.read(1000).decode(errors="replace")
    finally:
        connection.close()

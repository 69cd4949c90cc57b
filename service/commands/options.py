"""Options that several commands have: lengths and kinds, and how images are taken in and reported."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from eigenlens.index.errors import IndexKindError
from eigenlens.index.qdrant_engine.explained import KEY_VARIABLE
from eigenlens.index.qdrant_engine.server import URL_VARIABLE, QdrantServer, server_at
from eigenlens.service.api.report import Report
from eigenlens.service.errors import SettingsError

if TYPE_CHECKING:  # needs numpy, which a client does not have
    from eigenlens.service.gallery.limits import Limits

_LISTED = 20


def parse_lengths(text: str) -> list[int]:
    """Parse lengths separated by commas."""
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of lengths such as 8,16,32")
    return lengths


def parse_kinds(text: str) -> dict[int, str]:
    """Parse LENGTH=KIND separated by commas; it does not check that the kinds exist."""
    kinds: dict[int, str] = {}
    for part in text.split(","):
        length, separator, kind = part.partition("=")
        if not separator or not length.strip().isdigit():
            raise argparse.ArgumentTypeError(f"'{part}' is not LENGTH=KIND, such as 64=ivf-sq8")
        kinds[int(length)] = kind.strip()
    return kinds


def parse_known_kinds(text: str) -> dict[int, str]:
    """Parse LENGTH=KIND separated by commas, and check that the kinds exist."""
    from eigenlens.index.faiss_engine.kinds import require_kind  # needs FAISS, which a client does not have
    from eigenlens.index.pgvector_engine.kinds import KINDS as PGVECTOR_KINDS
    from eigenlens.index.qdrant_engine.kinds import KINDS as QDRANT_KINDS

    remote = PGVECTOR_KINDS.keys() | QDRANT_KINDS.keys()
    try:
        return {
            length: kind if kind in remote else require_kind(kind).name for length, kind in parse_kinds(text).items()
        }
    except IndexKindError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def configure_report(parser: argparse.ArgumentParser, *, json: bool = True) -> None:
    """Declare --list and, where the command has none, --json."""
    parser.add_argument("--list", action="store_true", help="name every file that failed or was skipped")
    if json:
        parser.add_argument("--json", action="store_true", help="print the report as JSON")


def configure_store(parser: argparse.ArgumentParser) -> None:
    """Declare --store for a command that opens a gallery."""
    parser.add_argument(
        "--store",
        metavar="ADDRESS",
        default=os.environ.get("EIGENLENS_STORE") or None,
        help="address of the PostgreSQL that has the gallery's images, such as postgresql://user@host/database; in the "
        "variable EIGENLENS_STORE no other user sees it (default: SQLite in the gallery's directory)",
    )


def configure_backend(parser: argparse.ArgumentParser) -> None:
    """Declare --backend-url for a command that opens generations of a gallery."""
    parser.add_argument(
        "--backend-url",
        metavar="URL",
        default=os.environ.get(URL_VARIABLE) or None,
        help="address of the Qdrant that has the gallery's codes with the backend qdrant, such as "
        f"http://qdrant.example:6333 (default: {URL_VARIABLE}); its API key is taken from the variable {KEY_VARIABLE}",
    )


def qdrant_of(args: argparse.Namespace) -> QdrantServer | None:
    """Return the Qdrant that `configure_backend` declares; None without an address."""
    return server_at(args.backend_url, os.environ.get(KEY_VARIABLE))


def configure_intake(parser: argparse.ArgumentParser) -> None:
    """Declare the options of commands that take images in from the disk."""
    parser.add_argument("--follow-links", action="store_true", help="take in the folders that links lead to as well")
    configure_limits(parser)
    configure_report(parser)


def configure_limits(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `limits_of`."""
    parser.add_argument(
        "--max-image-bytes",
        type=parse_positive,
        metavar="N",
        help="largest image that is taken, as of `eigenlens serve`",
    )
    parser.add_argument(
        "--max-pixels", type=parse_positive, metavar="N", help="largest image that is taken, in pixels, likewise"
    )


def limits_of(args: argparse.Namespace) -> Limits:
    """Return the limits that flags or the service's variables set, by default the service's own.

    Raises: SettingsError, which names the variable that is wrong.
    """
    from eigenlens.service.gallery.limits import Limits

    chosen = {}
    for name in ("max_image_bytes", "max_pixels"):
        value, variable = getattr(args, name), f"EIGENLENS_{name.upper()}"
        if value is None and variable in os.environ:
            try:
                value = parse_positive(os.environ[variable])
            except argparse.ArgumentTypeError as error:
                raise SettingsError(f"{variable}: {error}") from None
        if value is not None:
            chosen[name] = value
    return Limits(**chosen)


def print_report(report: Report, args: argparse.Namespace) -> None:
    """Print a report: as JSON, or as a line, with what failed (or all, by --list) on standard error."""
    if args.json:
        print(report.model_dump_json(indent=2))
        return
    print(report.sentence())
    for line in report.details(limit=None if args.list else _LISTED):
        print(plain(f"  {line}"), file=sys.stderr)


def plain(text: str) -> str:
    """Return a text with control characters escaped, so that a terminal does not obey them."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def parse_whole(text: str) -> int:
    """Parse a whole number, 0 or above."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number, such as 0 or 20")
    return int(text)


def parse_positive(text: str) -> int:
    """Parse a whole number above 0."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive whole number")
    return int(text)

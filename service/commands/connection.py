"""Helpers of the commands that call a running service: its address and key, tables, and the progress of a job."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from eigenlens.service.api.admin import Job
from eigenlens.service.api.answer import AnswerModel
from eigenlens.service.client.calls import URL
from eigenlens.service.client.sync_client import Client
from eigenlens.service.commands.options import plain
from eigenlens.service.errors import ServiceError

DONE_IN_PART = 6
_HELP = """
exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 not found, 4 key missing, wrong or without the needed
scope, 5 no service or an overloaded one, 6 done in part"""


def configure_connection(parser: argparse.ArgumentParser, *, keyed: bool = True) -> None:
    """Declare --url and --json and, for commands that need a key, --key-file."""
    parser.epilog = (parser.epilog or "") + "\n" + _HELP
    parser.add_argument(
        "--url",
        default=os.environ.get("EIGENLENS_URL", URL),
        help="address of the service (default: EIGENLENS_URL or %(default)s)",
    )
    if keyed:
        parser.add_argument(
            "--key-file",
            metavar="FILE",
            type=Path,
            help="file with the key, such as GALLERY/admin.key (default: the key in EIGENLENS_KEY)",
        )
    parser.add_argument("--json", action="store_true", help="print the service's answer as JSON")


def connect(args: argparse.Namespace) -> Client:
    """Return a client of the service at --url. Raises: ServiceError, if the key cannot be read."""
    key = os.environ.get("EIGENLENS_KEY")
    file: Path | None = getattr(args, "key_file", None)
    if file is not None:
        try:
            key = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ServiceError(f"cannot read the key in {file}: {error}") from error
    if key is not None and not (key.isascii() and key.isprintable()):
        raise ServiceError("the key has characters that no key has; give the file that the service wrote")
    return Client(args.url, key=key)


def print_json(value: Any) -> None:
    """Print an answer, a list of answers or any JSON value, indented, with the members that the service sent."""
    print(json.dumps(value, indent=2, default=_members))


def _members(value: object) -> dict[str, Any]:
    if not isinstance(value, AnswerModel):
        raise TypeError(f"{type(value).__name__} is no JSON")
    return value.model_dump(mode="json", exclude_unset=True)


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table with columns of the width that they need; numbers are aligned to the right."""
    body = [[plain(str(cell)) for cell in row] for row in rows]
    table = [list(head), *body]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        cells = [
            cell.rjust(width) if _is_number(column, body) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _is_number(column: int, rows: Sequence[Sequence[str]]) -> bool:
    return all(row[column].replace(".", "").replace(",", "").replace("-", "").isdigit() for row in rows)


def follow_or_print_id(client: Client, job: Job, args: argparse.Namespace) -> int:
    """Follow a job that was just started or, with --no-wait, print its id; return the exit status."""
    if not args.no_wait:
        return follow(client, job, as_json=args.json)
    if args.json:
        print_json(job)
    else:
        print(f"job {job.id}; follow it with: eigenlens jobs {job.id}")
    return 0


def follow(client: Client, job: Job, *, as_json: bool) -> int:
    """Show a job's progress until it ends; return the exit status."""
    last = job
    for last in client.follow(job.id):
        if not as_json:
            _print_progress(last)
    if as_json:
        print_json(last)
    else:
        if sys.stderr.isatty():
            print(file=sys.stderr)
        print(describe(last))
    return 0 if last.state == "done" else 1


def _print_progress(job: Job) -> None:
    share = f" {job.done:,} of {job.total:,}" if job.total else ""
    line = f"{job.kind} {job.id}: {job.stage or job.state}{share}"
    end = {"end": "", "flush": True} if sys.stderr.isatty() else {}
    print(f"\r\x1b[K{line}" if end else line, file=sys.stderr, **end)  # type: ignore[call-overload]


def describe(job: Job) -> str:
    """Describe in one line how a job ended."""
    head = f"{job.kind} {job.id} {job.state}"
    parts = [f"generation {job.generation}"] if job.generation is not None else []
    result = job.result or {}
    if "report" in result:
        parts += [str(result["report"])]
    else:
        parts += [f"{name} {value:,}" for name, value in result.items() if isinstance(value, int)]
    parts += [plain(job.error)] if job.error else []
    return f"{head}: {', '.join(parts)}" if parts else head

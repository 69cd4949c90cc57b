"""`eigenlens jobs`: the jobs of a running service."""

from __future__ import annotations

import argparse

from eigenlens.service.commands.connection import (
    configure_connection,
    connect,
    describe,
    follow,
    print_json,
    print_table,
)
from eigenlens.service.commands.options import plain

EPILOG = """examples:
  eigenlens jobs --key-file GALLERY/admin.key
  eigenlens jobs 4f2a9c01b7de            follow a job until it ends
  eigenlens jobs 4f2a9c01b7de --cancel"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("id", metavar="ID", nargs="?", help="job to follow (default: list all)")
    parser.add_argument("--cancel", action="store_true", help="cancel the job")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """List the jobs, or follow or cancel one. Raises: ServiceError."""
    with connect(args) as client:
        if args.id is None:
            jobs = client.jobs()
            if args.json:
                print_json(jobs)
            else:
                rows = [(job.id, job.kind, job.state, job.created[:19], plain(job.error or job.stage)) for job in jobs]
                print_table(("id", "kind", "state", "created", ""), rows)
            return 0
        if args.cancel:
            job = client.cancel(args.id)
            if args.json:
                print_json(job)
            else:
                print(describe(job))
            return 0
        return follow(client, client.job(args.id), as_json=args.json)

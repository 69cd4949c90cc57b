"""`eigenlens recalibrate`: let a running service measure its plans again with what people search for."""

from __future__ import annotations

import argparse

from eigenlens.service.commands.connection import configure_connection, connect, follow_or_print_id

EPILOG = """examples:
  eigenlens recalibrate --key-file GALLERY/admin.key
  eigenlens recalibrate --no-wait --json
  eigenlens recalibrate --forget        forget the codes of recent searches

A build measures recall with images of the gallery. People may search with other images, and then targets can be missed:
`eigenlens stats` shows the recall that searches reach. Recalibration measures all plans again, with the codes of recent
searches (setting recent_queries, at least 100 searches). The indexes stay as they are, so it takes seconds to minutes.
The result is a new generation. To go back, activate the one before: `eigenlens generations --activate NUMBER`."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--no-wait", action="store_true", help="do not wait for the end of the job")
    actions.add_argument(
        "--forget", action="store_true", help="do not recalibrate; forget the codes of recent searches instead"
    )
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Start a recalibration and follow it, or forget recent searches. Raises: ServiceError."""
    with connect(args) as client:
        if args.forget:
            client.forget_queries()
            if not args.json:
                print("the codes of recent searches are forgotten")
            return 0
        job = client.recalibrate()
        return follow_or_print_id(client, job, args)

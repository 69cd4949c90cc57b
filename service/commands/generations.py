"""`eigenlens generations`: list, activate and remove the generations of a running service."""

from __future__ import annotations

import argparse

from eigenlens.service.commands.connection import configure_connection, connect, print_json, print_table

EPILOG = """examples:
  eigenlens generations --key-file GALLERY/admin.key
  eigenlens generations --activate 3
  eigenlens generations --rm 2

Images that were added or removed since a generation was built stay added or removed when you activate it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--activate", metavar="NUMBER", type=int, help="serve this generation")
    actions.add_argument("--rm", metavar="NUMBER", type=int, help="remove this generation, unless it is served")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Activate or remove a generation, then list all. Raises: ServiceError."""
    with connect(args) as client:
        if args.activate is not None:
            client.activate(args.activate)
        if args.rm is not None:
            client.remove_generation(args.rm)
        generations = client.generations()
    if args.json:
        print_json(generations)
        return 0
    rows = [
        (
            entry.number,
            "served" if entry.served else "",
            f"{entry.count:,}",
            ",".join(map(str, entry.lengths)),
            f"{entry.bytes:,}",
            entry.created[:19],
        )
        for entry in generations
    ]
    print_table(("number", "", "images", "lengths", "bytes", "created"), rows)
    return 0

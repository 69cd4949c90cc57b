"""`eigenlens generations`: what a running service keeps, which it serves, and the switch."""

from __future__ import annotations

import argparse

from eigenlens.service.commands.connection import configure_connection, connect, print_json, print_table

EPILOG = """examples:
  eigenlens generations --key-file GALLERY/admin.key
  eigenlens generations --activate 3
  eigenlens generations --rm 2

Going back to a generation loses nothing: images that were added or removed since it was built stay so."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--activate", metavar="NUMBER", type=int, help="serve this one")
    chosen.add_argument("--rm", metavar="NUMBER", type=int, help="remove this one, which is not served")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Do what is asked, then list. Raises: ServiceError."""
    with connect(args) as client:
        if args.activate is not None:
            client.activate(args.activate)
        if args.rm is not None:
            client.remove_generation(args.rm)
        found = client.generations()
    if args.json:
        print_json(found)
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
        for entry in found
    ]
    print_table(("number", "", "images", "lengths", "bytes", "created"), rows)
    return 0

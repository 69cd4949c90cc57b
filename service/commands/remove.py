"""`eigenlens rm`: remove images from a running service."""

from __future__ import annotations

import argparse
import sys

from eigenlens.service.client.errors import ApiError
from eigenlens.service.commands.connection import DONE_IN_PART, configure_connection, connect, print_json
from eigenlens.service.commands.options import plain

EPILOG = """examples:
  eigenlens rm test-00000.png --key-file GALLERY/admin.key
  eigenlens rm test-00000.png test-00001.png
  eigenlens rm --ignore-missing -- -oddly-named.png

No search that starts after the command has ended returns these images."""
_NOT_FOUND = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("ids", metavar="ID", nargs="+", help="id of an image")
    parser.add_argument("--ignore-missing", action="store_true", help="do not fail if an image is not there")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Remove the images one by one and print those that were not there. Raises: ServiceError."""
    removed, missing = [], []
    with connect(args) as client:
        for id in args.ids:
            try:
                client.remove(id)
                removed.append(id)
            except ApiError as error:
                if error.status != 404:
                    raise
                missing.append(id)
    if args.json:
        print_json({"removed": removed, "missing": missing})
    else:
        print(f"{len(removed)} removed")
        for id in missing:
            print(f"  {plain(id)}: there is no such image", file=sys.stderr)
    if not missing or args.ignore_missing:
        return 0
    return DONE_IN_PART if removed else _NOT_FOUND

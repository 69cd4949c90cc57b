"""`eigenlens add`: upload image files and folders to a running service."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eigenlens.service.client.uploads import merged
from eigenlens.service.commands.connection import DONE_IN_PART, configure_connection, connect, plain, print_json
from eigenlens.service.errors import ServiceError

EPILOG = """examples:
  eigenlens add boot.jpg --key-file GALLERY/admin.key
  eigenlens add ~/Pictures --prefix pictures/
  eigenlens add boot.jpg --metadata '{"price": 80}'

The id of an image is the prefix and then its path below the folder. The next search finds the images that the
progress counts. Images that are in the gallery with the same content and metadata stay unchanged, so you can run the
command again."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("paths", metavar="PATH", type=Path, nargs="+", help="an image file, or a folder of them")
    parser.add_argument("--prefix", default="", help="beginning of every id, such as pictures/")
    parser.add_argument(
        "--metadata", metavar="JSON", type=_object, help="metadata of all images; the top folder of each is its label"
    )
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Upload the images and print those that failed. Raises: ServiceError."""
    for path in args.paths:
        if not path.exists():
            raise ServiceError(f"there is no {path}")
    added = merged([])
    with connect(args) as client:
        for path in args.paths:
            with tqdm(desc=str(path), unit="image", disable=args.json) as bar:

                def show(done: int, total: int, bar: tqdm[Any] = bar) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                sent = client.add_folder(path, prefix=args.prefix, metadata=args.metadata, on_progress=show)
                added = merged([added, sent])
    failed = added.failed
    if args.json:
        print_json(added)
    else:
        counts = f"{added.added} added, {added.replaced} replaced, {added.unchanged} unchanged"
        print(f"{counts}, {len(failed)} failed")
        for image in failed:
            print(f"  {plain(image.id)}: {plain(image.reason)}", file=sys.stderr)
    return (DONE_IN_PART if added.images else 1) if failed else 0


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"'{text}' is not a JSON object")
    return value

"""`eigenlens duplicates`: find the duplicates of a running service's gallery, and list them."""

from __future__ import annotations

import argparse
import sys

from eigenlens.service.api.admin import Job
from eigenlens.service.api.duplicates import DEFAULT_COSINE, DuplicateGroupAnswer
from eigenlens.service.client.sync_client import Client
from eigenlens.service.commands.connection import configure_connection, connect, follow, print_json
from eigenlens.service.commands.options import plain
from eigenlens.service.errors import ServiceError

EPILOG = """examples:
  eigenlens duplicates --key-file GALLERY/admin.key             look for duplicates, and list them
  eigenlens duplicates --listed                                 list what was found before
  eigenlens duplicates --listed --exact                         only copies: the same bytes
  eigenlens duplicates --cosine 0.95 --json > duplicates.json   looser, for another program

The first image of each group is the best: the one with the most pixels, and of these the sharpest. Nothing is removed;
`eigenlens rm ID` does that. A cosine of 0.98 finds copies that were resized or saved again; how loose it is depends on
the encoder, so look at some groups first."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--cosine",
        type=_cosine,
        default=DEFAULT_COSINE,
        metavar="C",
        help="full codes with this cosine or more are near-duplicates, 0.5 to 1 (default: %(default)s)",
    )
    parser.add_argument("--listed", action="store_true", help="list what the last search found; needs no admin key")
    parser.add_argument("--exact", action="store_true", help="list copies only: groups with the same bytes")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Find duplicates unless they are only listed, then list them. Raises: ServiceError."""
    with connect(args) as client:
        if not args.listed:
            _find(client, client.find_duplicates(cosine=args.cosine), as_json=args.json)
        listed = client.duplicates(exact=True if args.exact else None)
    if listed.found is None:
        raise ServiceError("duplicates were not looked for yet; without --listed, this command looks for them")
    groups = listed.groups
    if args.json:
        print_json([group.model_dump(mode="json") for group in groups])
        return 0
    for group in groups:
        _print(group)
    images = sum(len(group.images) for group in groups)
    fewer = f"; keeping the first of each leaves {images - len(groups):,} fewer" if groups else ""
    print(f"{len(groups):,} groups, {images:,} images{fewer}")
    return 0


def _find(client: Client, job: Job, *, as_json: bool) -> None:
    """Follow the search. Raises: ServiceError, if it fails."""
    if not as_json:
        status = follow(client, job, as_json=False)
    else:
        *_, last = client.follow(job.id)
        status = 0 if last.state == "done" else 1
        if status:
            print(last.error or last.state, file=sys.stderr)
    if status:
        raise ServiceError(f"the search for duplicates did not end well; see `eigenlens jobs {job.id}`")


def _print(group: DuplicateGroupAnswer) -> None:
    print(f"{len(group.images)} images{', the same bytes' if group.exact else ''}")
    for image in group.images:
        print(f"  {image.cosine:.3f}  {image.width} x {image.height}  {plain(image.id)}")


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.5 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0.5 to 1")
    return value

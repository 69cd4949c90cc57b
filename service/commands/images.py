"""`eigenlens images`: list the images of a running service's gallery, or tell what is known of one."""

from __future__ import annotations

import argparse
from typing import get_args

from eigenlens.service.api.images import Order
from eigenlens.service.client.sync_client import Client
from eigenlens.service.commands.connection import configure_connection, connect, print_json, print_table
from eigenlens.service.commands.options import parse_whole
from eigenlens.service.errors import ServiceError

EPILOG = """examples:
  eigenlens images --order taken --limit 20       the last photographs by their date
  eigenlens images --contains beach               ids that have this somewhere
  eigenlens images holidays/beach.jpg             one image: its metadata and what the camera wrote
  eigenlens images --facets                       values of the metadata, with counts
  eigenlens images --limit 0 --json > all.json    every image, for another program"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("id", metavar="ID", nargs="?", help="tell what is known of this image")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="only ids that begin with this")
    parser.add_argument("--contains", default="", metavar="TEXT", help="only ids that have this somewhere")
    parser.add_argument(
        "--order",
        choices=get_args(Order),
        default="name",
        help="newest: added last; taken: photographed last (default: %(default)s)",
    )
    parser.add_argument("--limit", type=parse_whole, default=50, metavar="N", help="0: no limit (default: %(default)s)")
    parser.add_argument("--facets", action="store_true", help="list the values of the metadata with counts instead")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Print them. Raises: ServiceError."""
    if args.id is not None and (args.facets or args.prefix or args.contains):
        raise ServiceError("give an ID alone, or what to list")
    with connect(args) as client:
        if args.id is not None:
            _print_one(client, args.id, as_json=args.json)
        elif args.facets:
            _print_facets(client, as_json=args.json)
        else:
            _print_list(client, args)
    return 0


def _print_one(client: Client, id: str, *, as_json: bool) -> None:
    image, exif = client.get(id), client.exif(id)
    if as_json:
        print_json(image.model_dump(mode="json") | {"exif": exif})
        return
    rows = [("id", image.id), ("type", image.media_type), ("size", f"{image.width} x {image.height}")]
    print_table(("", ""), [*rows, *image.metadata.items(), *((f"EXIF {name}", text) for name, text in exif.items())])


def _print_facets(client: Client, *, as_json: bool) -> None:
    facets = client.facets()
    if as_json:
        print_json([facet.model_dump(mode="json") for facet in facets])
        return
    for facet in facets:
        print_table((facet.field, "images"), [(value.value, f"{value.count:,}") for value in facet.values])
        if facet.others:
            print(f"and {facet.others:,} more values")


def _print_list(client: Client, args: argparse.Namespace) -> None:
    images = client.images(prefix=args.prefix, contains=args.contains, order=args.order, limit=args.limit or None)
    if args.json:
        print_json([image.model_dump(mode="json") for image in images])
        return
    print_table(
        ("id", "size", "taken", "label"),
        [
            (
                image.id,
                f"{image.width} x {image.height}",
                *(image.metadata.get(name, "") for name in ("taken", "label")),
            )
            for image in images
        ],
    )

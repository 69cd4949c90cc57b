"""`eigenlens restore`: a backup becomes a gallery, or what a served gallery holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from eigenlens.service.commands.connection import configure_connection, connect, follow, print_json
from eigenlens.service.errors import ServiceError

EPILOG = """examples:
  eigenlens restore monday.tar --gallery galleries/again             a new gallery
  eigenlens restore monday.tar --gallery galleries/shop --replace    in the place of one that nobody serves
  eigenlens restore monday.tar --served --key-file GALLERY/admin.key undo what came since, while it is served

All of the archive is verified before anything changes, and the change is one step. With --replace the present keys
and backups are kept. With --served the archive is one of `eigenlens backup --list`, of the encoder that is served."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("archive", metavar="FILE", help="what `eigenlens backup` wrote; with --served its name there")
    parser.add_argument("--gallery", metavar="DIR", type=Path, help="directory of the gallery to make")
    parser.add_argument("--replace", action="store_true", help="put it in the place of the gallery that is there")
    parser.add_argument("--served", action="store_true", help="have a running service restore its own gallery")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Restore. Raises: EigenlensError."""
    if args.served == (args.gallery is not None):
        raise ServiceError("give either --gallery DIR or --served")
    if args.served:
        with connect(args) as client:
            return follow(client, client.restore(args.archive), as_json=args.json)
    from eigenlens.service.gallery.restore import restore  # needs FAISS, and asking a service does not

    archive = Path(args.archive)
    if not archive.is_file():
        raise ServiceError(f"there is no file {archive}")
    count = restore(archive, args.gallery, replace=args.replace)
    if args.json:
        print_json({"gallery": str(args.gallery), "images": count})
    else:
        print(f"{args.gallery}: {count} images\nnext: eigenlens serve --gallery {args.gallery}")
    return 0

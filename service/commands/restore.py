"""`eigenlens restore`: make a gallery from a backup, or return a served gallery to the state of one."""

from __future__ import annotations

import argparse
from pathlib import Path

from eigenlens.service.commands.connection import configure_connection, connect, follow, print_json
from eigenlens.service.errors import ServiceError

EPILOG = """examples:
  eigenlens restore monday.tar --gallery galleries/again             make a new gallery
  eigenlens restore monday.tar --gallery galleries/shop --replace    replace a gallery that is not served
  eigenlens restore monday.tar --served --key-file GALLERY/admin.key undo later changes while the gallery is served

The whole archive is verified before anything changes, and the change is one step. --replace keeps the present keys
and backups. With --served, the archive is one that `eigenlens backup --list` shows, of the encoder that is served."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument(
        "archive", metavar="FILE", help="an archive; with --served its name in `eigenlens backup --list`"
    )
    parser.add_argument("--gallery", metavar="DIR", type=Path, help="directory of the gallery to make")
    parser.add_argument("--replace", action="store_true", help="replace the gallery in that directory")
    parser.add_argument("--served", action="store_true", help="let a running service restore its own gallery")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Restore an archive. Raises: EigenlensError."""
    if args.served == (args.gallery is not None):
        raise ServiceError("give either --gallery DIR or --served")
    if args.served:
        with connect(args) as client:
            return follow(client, client.restore(args.archive), as_json=args.json)
    from eigenlens.service.gallery.restore import restore  # needs FAISS, which a client does not have

    archive = Path(args.archive)
    if not archive.is_file():
        raise ServiceError(f"there is no file {archive}")
    count = restore(archive, args.gallery, replace=args.replace)
    if args.json:
        print_json({"gallery": str(args.gallery), "images": count})
    else:
        print(f"{args.gallery}: {count} images\nnext: eigenlens serve --gallery {args.gallery}")
    return 0

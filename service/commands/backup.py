"""`eigenlens backup`: one consistent archive of a running service's gallery."""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eigenlens.service.commands.connection import configure_connection, connect, print_json, print_table
from eigenlens.service.errors import ServiceError

EPILOG = """examples:
  eigenlens backup --key-file GALLERY/admin.key          to a file here, named by the time
  eigenlens backup monday.tar --files                    with the bytes of images that lie in folders
  eigenlens backup monday.tar --keep                     beside the gallery, where the service runs
  eigenlens backup --list

Searches and changes continue meanwhile. `eigenlens restore` turns an archive into a gallery again."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="file to write; with --keep only a name")
    parser.add_argument("--files", action="store_true", help="include the bytes of images that lie in folders")
    parser.add_argument("--keep", action="store_true", help="let the service write the archive beside its gallery")
    parser.add_argument("--list", action="store_true", help="list the archives beside the service's gallery")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Write or list archives. Raises: ServiceError."""
    with connect(args) as client:
        if args.list:
            backups = client.backups()
            if args.json:
                print_json(backups)
            else:
                print_table(("name", "bytes", "created"), [(b.name, f"{b.bytes:,}", b.created[:19]) for b in backups])
            return 0
        if args.keep:
            if args.file is not None and args.file.name != str(args.file):
                raise ServiceError("with --keep, give a name, not a path")
            kept = client.keep_backup(None if args.file is None else args.file.name, files=args.files)
            if args.json:
                print_json(kept)
            else:
                print(f"{kept.name}: {kept.bytes:,} bytes, beside the gallery")
            return 0
        path = args.file or Path(f"gallery-{datetime.now().astimezone():%Y%m%dT%H%M%S}.tar")
        with tqdm(desc=path.name, unit="B", unit_scale=True, disable=args.json) as bar:

            def show(done: int, total: int, bar: tqdm[Any] = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            size = client.backup(path, files=args.files, on_progress=show)
        if args.json:
            print_json({"file": str(path), "bytes": size})
        else:
            print(f"{path}: {size:,} bytes")
        return 0

"""`eigenlens keys`: make, list and revoke the keys of a gallery's service, which notices within a second."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eigenlens.service.errors import KeyFileError
from eigenlens.service.keys import SCOPES, add_key, read_keys, revoke_key

EPILOG = """examples:
  eigenlens keys --gallery galleries/fashion add shop --scope search --scope write
  eigenlens keys --gallery galleries/fashion list
  eigenlens keys --gallery galleries/fashion revoke 1f3a9c02

A key is printed once, on standard output; only its digest is kept. To rotate one, add another, then revoke the old."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--gallery", type=Path, metavar="DIR", help="gallery whose keys.json is meant")
    where.add_argument("--keys-file", type=Path, metavar="FILE", help="where the setting keys_file names another file")
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|list|revoke")
    add = actions.add_parser("add", help="make a key and print it")
    add.add_argument("name", help="whose key it is, for people")
    add.add_argument("--scope", action="append", required=True, choices=SCOPES, help="may be given several times")
    actions.add_parser("list", help="the keys that there are")
    revoke = actions.add_parser("revoke", help="take a key out")
    revoke.add_argument("id", help="of the key, as `list` tells it")


def run(args: argparse.Namespace) -> int:
    """Do it. Raises: KeyFileError."""
    if args.gallery is not None and not args.gallery.is_dir():
        raise KeyFileError(f"there is no gallery {args.gallery}")
    path = args.keys_file or args.gallery / "keys.json"
    if args.action == "add":
        key, secret = add_key(path, name=args.name, scopes=args.scope)
        print(f"key {key.id} ({', '.join(key.scopes)}); it is not shown again", file=sys.stderr)
        print(secret)
    elif args.action == "revoke":
        key = revoke_key(path, args.id)
        print(f"revoked key {key.id} ({key.name!r})", file=sys.stderr)
    else:
        for key in read_keys(path):
            print(f"{key.id}  {key.created}  {','.join(key.scopes):<18}  {key.name!r}")
    return 0

"""`eigenlens keys`: make, list and revoke keys; a running service notices a change within a second."""

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

A key is printed once, on standard output; only its digest is stored. To rotate a key, add a new one, then revoke the
old one."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    file = parser.add_mutually_exclusive_group(required=True)
    file.add_argument("--gallery", type=Path, metavar="DIR", help="gallery; its keys are in DIR/keys.json")
    file.add_argument("--keys-file", type=Path, metavar="FILE", help="file of the keys, as in the setting keys_file")
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|list|revoke")
    add = actions.add_parser("add", help="make a key and print it")
    add.add_argument("name", help="name of the key, to recognise it in the list")
    add.add_argument("--scope", action="append", required=True, choices=SCOPES, help="repeat it for several scopes")
    actions.add_parser("list", help="list the keys")
    revoke = actions.add_parser("revoke", help="revoke a key")
    revoke.add_argument("id", help="id of the key, as `list` shows it")


def run(args: argparse.Namespace) -> int:
    """Make, list or revoke keys. Raises: KeyFileError."""
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

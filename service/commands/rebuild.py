"""`eigenlens rebuild`: have a running service build its next generation."""

from __future__ import annotations

import argparse

from eigenlens.service.commands.connection import configure_connection, connect, follow, print_json
from eigenlens.service.commands.options import parse_kinds, parse_lengths

EPILOG = """examples:
  eigenlens rebuild --key-file GALLERY/admin.key
  eigenlens rebuild --lengths 8,16,64 --kinds 64=ivf-sq8
  eigenlens rebuild --import 2026/january        take a folder of the server in first
  eigenlens rebuild --no-wait --json

Searches are answered from the present generation until the switch. Its progress is shown until it ends; interrupting
the command does not end the job: `eigenlens jobs --cancel ID` does."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--lengths", type=parse_lengths, metavar="N,N,...", help="prefix lengths; the present if absent"
    )
    parser.add_argument("--kinds", type=parse_kinds, metavar="N=KIND,...", help="index kind of some lengths")
    parser.add_argument(
        "--encoder", metavar="ID", help="encoder of the gallery (eigenlens stats); the present if absent"
    )
    parser.add_argument(
        "--import", dest="folder", metavar="FOLDER", help="take in this folder below the server's import_root first"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the end")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Start it, and follow it. Raises: ServiceError."""
    with connect(args) as client:
        if args.folder is not None:
            job = client.import_folder(args.folder, rebuild=True)
        else:
            job = client.rebuild(lengths=args.lengths, kinds=args.kinds, encoder=args.encoder)
        if not args.no_wait:
            return follow(client, job, as_json=args.json)
        if args.json:
            print_json(job)
        else:
            print(f"job {job.id}; follow it with: eigenlens jobs {job.id}")
        return 0

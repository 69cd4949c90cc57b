"""`eigenlens rebuild`: let a running service build its next generation."""

from __future__ import annotations

import argparse
from typing import get_args

from eigenlens.service.api.admin import Optimise
from eigenlens.service.commands.connection import configure_connection, connect, follow_or_print_id
from eigenlens.service.commands.options import parse_kinds, parse_lengths

EPILOG = """examples:
  eigenlens rebuild --key-file GALLERY/admin.key
  eigenlens rebuild --lengths 8,16,64 --kinds 64=ivf-sq8
  eigenlens rebuild --import 2026/january        import a folder of the server first
  eigenlens rebuild --no-wait --json

The present generation answers searches until the new one is ready. The command shows the job's progress until it
ends. If you interrupt the command, the job continues; cancel it with `eigenlens jobs ID --cancel`."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--lengths",
        type=parse_lengths,
        metavar="N,N,...",
        help="prefix lengths to build (default: those of the last build)",
    )
    parser.add_argument("--kinds", type=parse_kinds, metavar="N=KIND,...", help="index kinds of some lengths")
    parser.add_argument(
        "--optimise",
        choices=get_args(Optimise),
        help="memory: all lengths, and one between two long ones where the codes want it; latency: also a graph over "
        "one prefix; build: the full length and that which finds shortlists best (default: as the present generation "
        "was built)",
    )
    parser.add_argument(
        "--encoder", metavar="ID", help="an encoder that `eigenlens stats` lists (default: the present one)"
    )
    parser.add_argument(
        "--import", dest="folder", metavar="FOLDER", help="import this folder below the server's import_root first"
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the end of the job")
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Start a rebuild and follow it. Raises: ServiceError."""
    with connect(args) as client:
        if args.folder is not None:
            job = client.import_folder(args.folder, rebuild=True)
        else:
            job = client.rebuild(lengths=args.lengths, kinds=args.kinds, optimise=args.optimise, encoder=args.encoder)
        return follow_or_print_id(client, job, args)

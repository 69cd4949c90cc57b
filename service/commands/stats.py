"""`eigenlens stats`: figures of a running service's gallery."""

from __future__ import annotations

import argparse

from eigenlens.service.commands.connection import configure_connection, connect, print_json, print_table

EPILOG = """examples:
  eigenlens stats --key-file GALLERY/admin.key
  eigenlens stats --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Print the figures. Raises: ServiceError."""
    with connect(args) as client:
        stats = client.stats()
    if args.json:
        print_json(stats)
        return 0
    rows: list[tuple[str, str]] = []
    for name, value in stats.items():
        if isinstance(value, dict):
            rows += [(f"{name} of {part}", f"{size:,}") for part, size in value.items()]
        elif isinstance(value, list):
            rows.append((name, ", ".join(map(str, value)) or "none"))
        else:
            rows.append((name, f"{value:,}" if isinstance(value, int | float) else str(value)))
    print_table(("figure", "value"), [(name.replace("_", " "), value) for name, value in rows])
    return 0

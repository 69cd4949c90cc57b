"""`eigenlens migrate`: take what a gallery knows of its images from SQLite to PostgreSQL, or back."""

from __future__ import annotations

import argparse
from pathlib import Path

from eigenlens.service.commands.options import configure_store
from eigenlens.service.errors import ServiceError

EPILOG = """examples:
  export EIGENLENS_STORE=postgresql://eigenlens@db.example/galleries?sslmode=verify-full
  eigenlens migrate --gallery galleries/shop            from SQLite to an empty schema of PostgreSQL
  eigenlens migrate --gallery galleries/shop --back     from PostgreSQL to SQLite

End services and builds of the gallery first. Images, metadata, contents, codes, removals, folders and jobs are copied
and compared row by row, and only then switched to; keys and generations stay in the gallery's directory. What is
interrupted leaves the gallery as it was: run it again."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--gallery", metavar="GALLERY", type=Path, required=True, help="directory of the gallery")
    parser.add_argument("--back", action="store_true", help="from PostgreSQL to SQLite")
    configure_store(parser)


def run(args: argparse.Namespace) -> int:
    """Migrate. Raises: EigenlensError."""
    if args.store is None:
        raise ServiceError("give the address of PostgreSQL as EIGENLENS_STORE or --store")
    from eigenlens.service.gallery.migrate import migrate_to_postgres, migrate_to_sqlite  # needs psycopg

    migrate = migrate_to_sqlite if args.back else migrate_to_postgres
    count = migrate(args.gallery, args.store)
    print(f"{args.gallery}: {count} images are in {'SQLite' if args.back else 'PostgreSQL'} now")
    return 0

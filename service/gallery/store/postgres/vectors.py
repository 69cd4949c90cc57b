"""Connections for searches by pgvector: its library is loaded and set up on each."""

from __future__ import annotations

from contextlib import closing

import psycopg

from eigenlens.service.errors import GalleryError
from eigenlens.service.gallery.store.postgres.connections import Connection, Connections
from eigenlens.service.gallery.store.postgres.errors import explain

_OLDEST = (0, 8)
_FIND = (
    "SELECT extversion, quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace "
    "WHERE extname = 'vector'"
)
# The library is loaded by a call of a function: a setting of hnsw that is made before is checked by nobody, and a wrong
# value falls back to the default with a notice. A search with a condition goes on until its shortlist is full.
_SET_UP = (
    "SELECT '[0]'::vector; SET hnsw.iterative_scan = relaxed_order; SET hnsw.max_scan_tuples = 200000; "
    "SET hnsw.scan_mem_multiplier = 4; SET jit = off"
)


class VectorConnections(Connections):
    """Connections on which the codes of generations are kept and searched; `index.pgvector_engine` uses them."""

    def prepare(self, connection: Connection) -> None:
        """Load pgvector. Raises: GalleryError, if it is not in the database."""
        rows = connection.execute(_FIND).fetchall()
        if not rows:
            raise GalleryError(f"PostgreSQL at {self.server} has no extension vector: CREATE EXTENSION vector")
        version, schema = rows[0]
        if tuple(map(int, version.split(".")[:2])) < _OLDEST:
            raise GalleryError(
                f"PostgreSQL at {self.server} has pgvector {version}; 0.8 or newer is needed: install it, then ALTER "
                "EXTENSION vector UPDATE"
            )
        connection.execute(f"SELECT set_config('search_path', current_setting('search_path') || ', {schema}', false)")
        connection.execute(_SET_UP)

    def is_installed(self) -> bool:
        """Return whether the extension is in the database."""
        with closing(Connections(self._address).open()) as connection:
            return bool(connection.execute(_FIND).fetchall())

    def install(self) -> None:
        """Make the extension in the database, if it is not there. Raises: GalleryError, if the server has it not."""
        try:
            with closing(Connections(self._address).open()) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        except psycopg.errors.InsufficientPrivilege as error:
            raise GalleryError(
                f"PostgreSQL at {self.server} lets this user make no extension: its owner runs CREATE EXTENSION vector"
            ) from error
        except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as error:
            raise GalleryError(
                f"PostgreSQL at {self.server} has no pgvector: install it there (Debian: postgresql-16-pgvector)"
            ) from error
        except psycopg.Error as error:
            raise explain(error, server=self.server) from error

"""The locks of a gallery in PostgreSQL: advisory locks of a connection, which end with it."""

from __future__ import annotations

import psycopg

from eigenlens.service.errors import GalleryBusyError
from eigenlens.service.gallery.store.locks import LockName
from eigenlens.service.gallery.store.postgres.connections import Connection

# Numbers of the locks within a gallery; that of the transaction that may write is 0.
NUMBERS: dict[LockName, int] = {"writer": 1, "switch": 2, "job": 3, "serving": 4, "backup": 5}
# The first of a lock's two numbers: that of the schema, so that galleries of one database do not share locks.
GALLERY = "hashtext('eigenlens:' || current_schema())"


class AdvisoryLock:
    """A lock that a connection of its own holds."""

    def __init__(self, connection: Connection, name: LockName) -> None:
        self._connection, self._number = connection, NUMBERS[name]

    def take(self, *, shared: bool) -> bool:
        """Try to take the lock. Returns: False, if another holds it."""
        function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
        row = self._connection.execute(f"SELECT {function}({GALLERY}, {self._number})").fetchone()
        return row is not None and bool(row[0])

    def share(self) -> bool:
        """Let others share the lock: this connection has it in both ways for a moment, and nobody comes between."""
        self.take(shared=True)
        self._connection.execute(f"SELECT pg_advisory_unlock({GALLERY}, {self._number})")
        return True

    def verify(self) -> None:
        """Check that the connection still holds the lock. Raises: GalleryBusyError, if it was cut off."""
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error:
            raise GalleryBusyError(
                "the connection to PostgreSQL that holds the writer's lock was cut off, and another process may write "
                "now: nothing was switched; start again"
            ) from None

    def close(self) -> None:
        """Release the lock."""
        self._connection.close()

"""The statements of this engine: a table of codes, an index for each prefix length, and a search in one statement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix

_PREFIX = "vectors_"
# COPY's binary format: its signature, flags and no extension; and what ends it.
COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"
# Neighbours among which a row's links are chosen. With pgvector's default of 64, a graph of codes in tight clusters
# misses some of the nearest, however hard it is searched; with this it finds nearly all, and takes no more bytes.
_EF_CONSTRUCTION = 200
# Memory for the graph while an index is built: half of the vectors' bytes more for links, measured; within limits.
_LINK_BYTES, _MAX_BUILD_MEGABYTES = 400, 2048


def table_name(number: int) -> str:
    """Return the name of the table of a generation."""
    return f"{_PREFIX}{number:06d}"


TABLES = (
    "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' "
    f"AND relname ~ '^{_PREFIX}[0-9]+$'"
)


def create_table(table: str, *, code_length: int) -> str:
    """Return the statements that make an empty table of codes; plain storage keeps a code beside its row."""
    return (
        f"DROP TABLE IF EXISTS {table}; "
        f"CREATE TABLE {table} (row integer PRIMARY KEY, key bigint NOT NULL, code halfvec({code_length}) NOT NULL); "
        f"ALTER TABLE {table} ALTER COLUMN code SET STORAGE PLAIN"
    )


def create_index(table: str, *, length: int, code_length: int, count: int) -> str:
    """Return the statements that build the graph of a prefix length."""
    megabytes = 64 + count * (2 * length + _LINK_BYTES) // 2**20
    return (
        f"SELECT set_config('maintenance_work_mem', greatest(pg_size_bytes(current_setting('maintenance_work_mem')) "
        f"/ 1048576, {min(megabytes, _MAX_BUILD_MEGABYTES)})::bigint || 'MB', true); "
        f"CREATE INDEX {table}_{length} ON {table} "
        f"USING hnsw (({_prefix('code', length, code_length)}) halfvec_cosine_ops) "
        f"WITH (ef_construction = {_EF_CONSTRUCTION})"
    )


def copy_codes(table: str) -> str:
    """Return the statement that takes the rows of `rows_to_copy`."""
    return f"COPY {table} (row, key, code) FROM STDIN WITH (FORMAT BINARY)"


def rows_to_copy(first: int, keys: NDArray[np.int64], codes: NDArray[np.float16]) -> bytes:
    """Return rows, keys (n,) and codes (n, code_length) in COPY's binary format, without its header and trailer."""
    length = codes.shape[1]
    form = np.dtype(
        [
            ("fields", ">i2"),
            ("row_bytes", ">i4"),
            ("row", ">i4"),
            ("key_bytes", ">i4"),
            ("key", ">i8"),
            ("code_bytes", ">i4"),
            ("length", ">i2"),
            ("unused", ">i2"),
            ("code", ">f2", (length,)),
        ]
    )
    rows = np.zeros(len(keys), dtype=form)
    rows["fields"], rows["row_bytes"], rows["key_bytes"] = 3, 4, 8
    rows["row"], rows["key"] = np.arange(first, first + len(keys)), keys
    rows["code_bytes"], rows["length"], rows["code"] = 4 + 2 * length, length, codes
    return rows.tobytes()


def vector(query: NDArray[np.float32], length: int) -> str:
    """Return the unit prefix of a code (code_length,) as the text of a halfvec; five digits hold half precision."""
    return "[" + ("%.5g," * length)[:-1] % tuple(unit_prefix(query[None], length)[0].tolist()) + "]"


def integers(rows: NDArray[np.int64]) -> str:
    """Return row numbers (n,) as the text of an array; psycopg makes it of a list in five times the time."""
    return f"{{{str(rows.tolist())[1:-1]}}}"


@dataclass(frozen=True)
class SearchStatement:
    """A search in one statement: a shortlist by one prefix, scored by another.

    Attributes:
        length: coordinates that the shortlist is ordered by.
        last_length: coordinates that score it.
        shortlist: rows that are scored; all, if None.
        by_graph: whether the shortlist comes from the graph of its length; every row is compared otherwise.
        condition: "bits" to search the rows of a bit string, "rows" those of a list; all rows if empty.
    """

    table: str
    code_length: int
    length: int
    last_length: int
    shortlist: int | None
    by_graph: bool
    condition: str = ""

    def text(self, k: int, *, in_order_of_shortlist: bool = False) -> str:
        """Return the statement, which returns rows and scores, best first and then by key.

        Its parameters are the vector of the last length, then the bits or rows if there is a condition, then the
        vector of the first length if there is a shortlist.

        Args:
            in_order_of_shortlist: results are those of the shortlist alone, in its order, by its own scores.
        """
        where = {"": "", "bits": " WHERE get_bit(%s, row) = 1", "rows": " WHERE row = ANY(%s::integer[])"}
        condition = where[self.condition]
        source = f"{self.table}{condition}"
        score = _score("code", self.last_length, self.code_length)
        if self.shortlist is not None:
            order = (
                f"{_prefix('code', self.length, self.code_length)} <=> %s::halfvec({self.length})"
                if self.by_graph
                else f"{_score('code', self.length, self.code_length)} DESC, key"
            )
            source = f"(SELECT row, key, code FROM {source} ORDER BY {order} LIMIT {self.shortlist}) shortlist"
        results = f"SELECT row, key, {score} AS score FROM {source}"
        if in_order_of_shortlist:
            return f"SELECT row, score FROM ({results}) results"
        return f"SELECT row, score FROM ({results}) results ORDER BY score DESC, key LIMIT {k}"

    @property
    def settings(self) -> str:
        """Statements before it, which leave the planner no choice: it cannot know what a condition leaves."""
        return f"SET enable_seqscan = {'off' if self.by_graph else 'on'}"


def _prefix(code: str, length: int, code_length: int) -> str:
    if length == code_length:
        return code
    return f"subvector({code}, 1, {length})::halfvec({length})"


def _score(code: str, length: int, code_length: int) -> str:
    """Return the cosine of a prefix with a parameter; 0 with a prefix of zeros, as everywhere here."""
    distance = f"{_prefix(code, length, code_length)} <=> %s::halfvec({length})"
    return f"1 - coalesce(nullif({distance}, 'NaN'), 1)"

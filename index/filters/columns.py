"""Metadata of a generation as columns on disk; with them, a filter becomes a mask of all rows in milliseconds."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.filters.masks import Coordinate, Mask, combine, no_codes
from eigenlens.index.filters.parse import Compare, Filter, Kind, Scalar, kind_of, scalars_of

_COLUMNS_FILE = "attributes.json"
MAX_FIELDS = 200


def write_attributes(directory: Path, metadata: Iterable[Mapping[str, Any]]) -> None:
    """Write the columns of `metadata`, which has one mapping for each row, into `directory`.

    A column holds the values of one field and kind (text, numbers, booleans): the rows that have one, ascending, and
    their values. A list gives a row several values. Each text is stored once, in sorted order, and values are the ranks
    of texts. Fields beyond the first 200 cannot be used in filters.
    """
    columns: dict[tuple[str, str], _Column] = {}
    fields: set[str] = set()
    for row, values in enumerate(metadata):
        for field, value in values.items():
            if field not in fields and len(fields) == MAX_FIELDS:
                continue
            fields.add(field)
            for scalar in scalars_of(value):
                kind = kind_of(scalar)
                columns.setdefault((field, kind), _Column(kind)).add(row, scalar)
    written = []
    for number, (field, of_kind) in enumerate(sorted(columns)):
        name = f"attribute-{number:04d}"
        columns[field, of_kind].write(directory, name)
        written.append({"field": field, "kind": of_kind, "name": name})
    (directory / _COLUMNS_FILE).write_text(json.dumps(written))


class Attributes:
    """The columns of a generation, memory-mapped.

    attributes = Attributes(path, count=len(codes))
    mask = attributes.mask(parse_filter({"label": "boots"}))
    """

    def __init__(self, directory: Path, *, count: int) -> None:
        """Open the columns of `count` rows in a directory."""
        self._count = count
        entries = json.loads((directory / _COLUMNS_FILE).read_text())
        self._columns: dict[tuple[str, Kind], _MappedColumn] = {
            (entry["field"], entry["kind"]): _MappedColumn(directory, entry["name"], entry["kind"]) for entry in entries
        }

    @property
    def fields(self) -> dict[str, list[str]]:
        """Fields that a filter can use, and the kinds of their values."""
        kinds: dict[str, list[str]] = {}
        for field, kind in self._columns:
            kinds.setdefault(field, []).append(kind)
        return kinds

    @property
    def columns(self) -> Sequence[tuple[str, Kind]]:
        """Field and kind of each column, in the order in which they were written."""
        return list(self._columns)

    def values(self, field: str, kind: Kind, start: int, stop: int) -> Iterator[tuple[int, Scalar]]:
        """Yield the rows from `start` to `stop` that have values in a column, ascending, each with a value."""
        return self._columns[field, kind].values(start, stop)

    def mask(self, condition: Filter, coordinate: Coordinate = no_codes) -> Mask:
        """Return whether each row satisfies the filter, (n,); `coordinate` tells values of the rows' unit codes."""
        return combine(condition, self._mask, coordinate)

    def _mask(self, condition: Compare) -> Mask:
        mask = np.zeros(self._count, dtype=bool)
        for rows in self._matching_rows(condition):
            mask[rows] = True
        return mask

    def _matching_rows(self, condition: Compare) -> Iterable[NDArray[np.int32]]:
        if condition.operator == "$exists":
            return [column.rows for (field, _), column in self._columns.items() if field == condition.field]
        return [
            self._columns[condition.field, kind].select(
                condition.operator, [value for of_kind, value in condition.values if of_kind == kind]
            )
            for kind in {kind for kind, _ in condition.values}
            if (condition.field, kind) in self._columns
        ]


class _Column:
    """Collects one column in compact arrays, of some bytes a value."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._rows = array("i")
        self._values = array("d")
        self._ranks: dict[bytes, int] = {}

    def add(self, row: int, value: Any) -> None:
        if self._kind == "text":
            text = value.encode("utf-8", "surrogatepass")
            value = self._ranks.setdefault(text, len(self._ranks))
        self._rows.append(row)
        self._values.append(float(value))

    def write(self, directory: Path, name: str) -> None:
        values = np.asarray(self._values, dtype=np.float64)
        if self._kind == "text":
            texts = sorted(self._ranks)
            ranks = np.empty(len(texts), dtype=np.int32)
            for rank, text in enumerate(texts):
                ranks[self._ranks[text]] = rank
            values = ranks[values.astype(np.int32)].astype(np.float64)
            ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
            np.save(directory / f"{name}-ends.npy", ends)
            (directory / f"{name}-texts.bin").write_bytes(b"".join(texts))
        np.save(directory / f"{name}-rows.npy", np.asarray(self._rows, dtype=np.int32))
        np.save(directory / f"{name}-values.npy", values)


class _Texts(Sequence[bytes]):
    """The sorted texts of a column, read from the mapped file."""

    def __init__(self, directory: Path, name: str) -> None:
        self._ends = np.load(directory / f"{name}-ends.npy", mmap_mode="r", allow_pickle=False)
        path = directory / f"{name}-texts.bin"
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, rank: Any) -> Any:
        start = self._ends[rank - 1] if rank else 0
        return self._bytes[start : self._ends[rank]].tobytes()


class _MappedColumn:
    """One column, memory-mapped."""

    def __init__(self, directory: Path, name: str, kind: str) -> None:
        self.rows: NDArray[np.int32] = np.load(directory / f"{name}-rows.npy", mmap_mode="r", allow_pickle=False)
        self._values = np.load(directory / f"{name}-values.npy", mmap_mode="r", allow_pickle=False)
        self._texts = _Texts(directory, name) if kind == "text" else None
        self._kind = kind

    def values(self, start: int, stop: int) -> Iterator[tuple[int, Scalar]]:
        """Yield rows of a range and their values."""
        first, last = np.searchsorted(self.rows, [start, stop]).tolist()
        for row, number in zip(self.rows[first:last].tolist(), self._values[first:last].tolist(), strict=True):
            if self._texts is not None:
                yield row, self._texts[int(number)].decode("utf-8", "surrogatepass")
            else:
                yield row, bool(number) if self._kind == "boolean" else number

    def select(self, operator: str, values: Sequence[Any]) -> NDArray[np.int32]:
        """Return the rows with a value that satisfies the comparison."""
        low, high = -np.inf, np.inf
        if operator == "$in":
            stored = [number for value in values for number in self._stored_form(value)]
            return np.asarray(self.rows[np.isin(self._values, stored)])
        bound = values[0]
        if self._texts is not None:
            # Compare ranks: the bound becomes the number of texts below it, equal texts included or not.
            text = bound.encode("utf-8", "surrogatepass")
            rank = (bisect_right if operator in ("$gt", "$lte") else bisect_left)(self._texts, text)
            if operator in ("$gt", "$gte"):
                low = rank
            else:
                high = rank - 1
        elif operator == "$gt":
            low = np.nextafter(float(bound), np.inf)
        elif operator == "$gte":
            low = float(bound)
        elif operator == "$lt":
            high = np.nextafter(float(bound), -np.inf)
        else:
            high = float(bound)
        return np.asarray(self.rows[(self._values >= low) & (self._values <= high)])

    def _stored_form(self, value: Any) -> list[float]:
        """Return the number that the column stores for a value; none for a text that it does not have."""
        if self._texts is None:
            return [float(value)]
        text = value.encode("utf-8", "surrogatepass")
        rank = bisect_left(self._texts, text)
        return [float(rank)] if rank < len(self._texts) and self._texts[rank] == text else []

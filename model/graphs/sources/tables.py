"""Tables of nodes and of edges: which columns mean what, and reading them from CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.model.errors import SourceError
from eigenlens.model.graphs.sources.source import (
    EDGES_PER_CHUNK,
    EdgeChunk,
    GraphSource,
    chunks_of_features,
    edges_of,
    integer_labels,
)

Columns = Mapping[str, Sequence[Any]]
_FEATURE = re.compile(r"(?:feature|feat|f|x)_?\d+")
_LABELS = ("label", "labels", "y", "class")
_FEATURE_LISTS = ("features", "x")


@dataclass(frozen=True)
class NodeTable:
    """The columns of a table of nodes, by what they mean; None where there are none.

    Attributes:
        features: (count, p), float32.
    """

    count: int
    ids: tuple[str, ...] | None
    features: NDArray[np.float32] | None
    labels: NDArray[np.int64] | None
    label_names: tuple[str, ...]
    metadata: Columns

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the metadata of each node; what is empty is left out."""
        for row in range(self.count):
            values = {name: _plain(column[row]) for name, column in self.metadata.items()}
            yield {name: value for name, value in values.items() if value not in ("", None)}

    def to_source(self, name: str, edges: Callable[[], Iterator[EdgeChunk]]) -> GraphSource:
        """Return the graph of these nodes and of edges between their rows."""
        return GraphSource(
            name=name,
            count=self.count,
            edges=edges,
            features=None if self.features is None else partial(chunks_of_features, self.features),
            feature_count=0 if self.features is None else self.features.shape[1],
            labels=self.labels,
            label_names=self.label_names,
            ids=self.ids,
            metadata=self.rows if self.metadata else None,
        )


def node_columns(columns: Columns, *, name: str) -> NodeTable:
    """Sort the columns of a table of nodes: `id`, `label`, features (feature_0, x1, f2, ...), all others metadata.

    Raises: SourceError, for a feature that is no number, or an id that is there twice.
    """
    count = len(next(iter(columns.values()))) if columns else 0
    features = _features(columns, name)
    label_column = next((column for column in _LABELS if column in columns), None)
    labels: NDArray[np.int64] | None = None
    label_names: tuple[str, ...] = ()
    if label_column is not None:
        given = np.asarray(columns[label_column])
        labels, label_names = integer_labels(_as_numbers(given), count=count, name=f"{name}: {label_column}")
    ids = tuple(map(str, columns["id"])) if "id" in columns else None
    if ids is not None and len(set(ids)) < count:
        seen: set[str] = set()
        twice = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise SourceError(f"{name}: the id '{twice}' is there twice; each node has an id of its own")
    used = {"id", label_column, *(column for column in columns if _is_feature(column))}
    metadata = {column: values for column, values in columns.items() if column not in used}
    return NodeTable(count, ids, features, labels, label_names, metadata)


def read_columns(path: Path) -> dict[str, Sequence[Any]]:
    """Read a table of nodes whole: .csv or .tsv with a first line of names, or .parquet. Raises: SourceError."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path)
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise SourceError(f"{path} is no readable Parquet file: {error}") from None
        return {column: table[column].to_pylist() for column in table.column_names}
    with _open(path) as file:
        try:
            reader = csv.reader(file, delimiter=_delimiter(path))
            names = next(reader, [])
            rows = [row for row in reader if row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from None
    if (wrong := next((row for row in rows if len(row) != len(names)), None)) is not None:
        raise SourceError(f"{path} has {len(names)} columns, and the row that begins with {wrong[:2]} has {len(wrong)}")
    return {name.strip(): [row[place].strip() for row in rows] for place, name in enumerate(names)}


def read_edges(path: Path, ids: tuple[str, ...] | None) -> Iterator[EdgeChunk]:
    """Yield the edges of .csv, .tsv or .parquet: the first two columns, rows of nodes or, where they have ids, ids.

    Raises: SourceError, for an end that is no whole number, or that no node has as its id.
    """
    if ids is None or ids == tuple(map(str, range(len(ids)))):
        for pairs in _pairs(path):
            yield edges_of(pairs if pairs.dtype.kind in "iuf" else _whole(pairs, path), name=str(path))
        return
    rows = {id: row for row, id in enumerate(ids)}
    for pairs in _pairs(path):
        try:
            places = [(rows[a], rows[b]) for a, b in pairs.astype(str).tolist()]
            yield np.array(places, dtype=np.int64).reshape(-1, 2)
        except KeyError as error:
            raise SourceError(f"{path}: an edge ends at {error}, and no node has this id") from None


def _whole(pairs: NDArray[Any], path: Path) -> NDArray[np.int64]:
    """Return texts as rows of nodes. Raises: SourceError, which names the first that is none."""
    try:
        return pairs.astype(np.int64)
    except (ValueError, TypeError, OverflowError):
        end = next(end for end in pairs.ravel().tolist() if not _is_whole(end))
        raise SourceError(
            f"{path}: an edge ends at {end!r}; without a column `id` in nodes, ends are rows of nodes, whole numbers "
            "from 0"
        ) from None


def _is_whole(end: Any) -> bool:
    try:
        return -(1 << 63) <= int(end) < 1 << 63
    except (ValueError, TypeError):
        return False


def _pairs(path: Path) -> Iterator[NDArray[Any]]:
    """Yield the first two columns in chunks, as numbers where they all are, else as texts."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(path) as table:
                for batch in table.iter_batches(batch_size=EDGES_PER_CHUNK):
                    yield np.stack([batch.column(place).to_numpy(zero_copy_only=False) for place in (0, 1)], axis=1)
        except (OSError, ValueError, TypeError, IndexError) as error:  # pyarrow's errors are ValueErrors
            raise SourceError(f"{path} has no edges in its first two columns that can be read: {error}") from None
        return
    delimiter = _delimiter(path)
    with _open(path) as file:
        try:
            first = True
            while lines := [line for _, line in zip(range(EDGES_PER_CHUNK), file, strict=False)]:
                lines = lines[1:] if first and not _is_edge(lines[0], delimiter) else lines
                first = False
                yield _parse(lines, delimiter)
        except (UnicodeDecodeError, csv.Error, SourceError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from None


def _parse(lines: list[str], delimiter: str) -> NDArray[Any]:
    if not lines:
        return np.zeros((0, 2), dtype=np.int64)
    try:
        return np.loadtxt(lines, delimiter=delimiter, dtype=np.int64, usecols=(0, 1), ndmin=2, comments=None)
    except ValueError:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
        if (short := next((row for row in rows if len(row) < 2), None)) is not None:
            parted = "tabs" if delimiter == "\t" else "commas"
            raise SourceError(f"an edge has two columns, parted by {parted}, and a line is {short[0][:40]!r}") from None
        return np.array([(row[0].strip(), row[1].strip()) for row in rows])


def _is_edge(line: str, delimiter: str) -> bool:
    """Return whether a first line is an edge rather than names of columns; texts as ids need names above them."""
    return all(part.strip().lstrip("-").isdigit() for part in line.split(delimiter)[:2])


def _features(columns: Columns, name: str) -> NDArray[np.float32] | None:
    lists = next((columns[column] for column in _FEATURE_LISTS if column in columns), None)
    try:
        if lists is not None and len(lists) and not isinstance(lists[0], str):
            return np.array(lists, dtype=np.float32)
        scalars = [column for column in columns if _FEATURE.fullmatch(column)]
        if not scalars:
            return None
        return np.stack([_numbers(columns[column], column, name) for column in scalars], axis=1)
    except (ValueError, TypeError) as error:
        raise SourceError(f"{name}: features are numbers, the same count for each node: {error}") from None


def _numbers(values: Sequence[Any], column: str, name: str) -> NDArray[np.float32]:
    """Return a column of features. Raises: SourceError, which names the first that is no number."""
    try:
        with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, which is refused later
            return np.array(values).astype(np.float32)
    except (ValueError, TypeError):
        row = next(row for row, value in enumerate(values) if not _is_number(value))
        told = "is empty" if values[row] in ("", None) else f"is {str(values[row])[:40]!r}"
        raise SourceError(f"{name}: {column} of node {row} {told}; features are numbers") from None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _is_feature(column: str) -> bool:
    return bool(_FEATURE.fullmatch(column)) or column in _FEATURE_LISTS


def _as_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Return texts as numbers where all that are not empty are numbers."""
    try:
        texts = ["nan" if value is None or value == "" else value for value in values.tolist()]
        return np.asarray(texts).astype(np.float64)
    except ValueError:
        return np.array(["" if value is None else str(value) for value in values.tolist()])


def _plain(value: Any) -> Any:
    """Return a value of a table as JSON has it; a text that is a number becomes one."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        if not np.isfinite(number):
            return value
        return int(value) if value.lstrip("+-").isdigit() else number
    return value if isinstance(value, (int, float, bool, type(None))) else str(value)


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","


def _open(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error

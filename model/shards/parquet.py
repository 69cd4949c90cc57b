"""Images in a Parquet file: a column of their bytes; from others their ids, labels and metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from eigenlens.image_files import Skipped
from eigenlens.image_ids import ids_of_paths
from eigenlens.model.errors import SourceError
from eigenlens.model.images.sources import DEFAULT_MAX_IMAGE_BYTES, SourceImage, too_large

_ROWS_AT_ONCE = 64
_ID_COLUMNS = ("id", "key", "__key__", "path", "file_name")


class ParquetSource:
    """Images of a Parquet file, in the order of its rows, read some rows at a time.

    The images are the first column of bytes, or of structures with `bytes`, as Hugging Face's data sets have it. Their
    ids are those of a column `id`, `key`, `__key__`, `path` or `file_name` or of the structure's `path`, if each is
    there once, and numbers of rows otherwise. Texts, numbers and booleans of other columns are metadata.
    """

    def __init__(self, path: Path, *, prefix: str = "", max_bytes: int = DEFAULT_MAX_IMAGE_BYTES) -> None:
        """Read the columns and the ids. Raises: SourceError."""
        self.name = str(path.resolve())
        self.skipped: tuple[Skipped, ...] = ()
        self._path, self._max_bytes = path, max_bytes
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                self._image = next((field.name for field in schema if _is_image(field.type)), None)
                if self._image is None:
                    columns = ", ".join(schema.names) or "none"
                    raise SourceError(f"{path} has no column of image bytes; its columns are {columns}")
                self._metadata = [
                    field.name for field in schema if field.name not in _ID_COLUMNS and _is_scalar(field.type)
                ]
                self._labels = _label_names(schema)
                ids = _ids(file, schema, self._image)
        except (OSError, pyarrow.ArrowException) as error:
            raise SourceError(f"{path} is no readable Parquet file: {error}") from None
        if not ids:
            raise SourceError(f"{path} has no rows")
        self._ids = ids_of_paths(ids, prefix=prefix)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[SourceImage]:
        row = 0
        try:
            with pyarrow.parquet.ParquetFile(self._path) as file:
                columns = [self._image, *self._metadata]
                for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns, use_threads=False):
                    for values in batch.to_pylist():
                        yield self._image_of(values, self._ids[row])
                        row += 1
        except (OSError, pyarrow.ArrowException) as error:
            raise SourceError(f"{self._path} cannot be read beyond its row {row}: {error}") from None

    def _image_of(self, values: dict[str, Any], id: str) -> SourceImage:
        content = values[str(self._image)]
        data = content["bytes"] if isinstance(content, dict) else content
        metadata = {name: self._plain(name, values[name]) for name in self._metadata if values[name] is not None}
        if data is None:
            return SourceImage(id, b"", None, metadata, "the row has no bytes of an image")
        if len(data) > self._max_bytes:
            return SourceImage(id, b"", None, metadata, too_large(len(data), self._max_bytes))
        return SourceImage(id, data, None, metadata)

    def _plain(self, name: str, value: Any) -> Any:
        names = self._labels.get(name)
        return names[value] if names is not None and isinstance(value, int) and 0 <= value < len(names) else value


def _is_image(type: pyarrow.DataType) -> bool:
    if pyarrow.types.is_struct(type):
        place = type.get_field_index("bytes")
        return place >= 0 and _is_image(type.field(place).type)
    return bool(pyarrow.types.is_binary(type) or pyarrow.types.is_large_binary(type))


def _is_scalar(type: pyarrow.DataType) -> bool:
    kinds = pyarrow.types
    return bool(
        kinds.is_string(type)
        or kinds.is_large_string(type)
        or kinds.is_integer(type)
        or kinds.is_floating(type)
        or kinds.is_boolean(type)
    )


def _ids(file: Any, schema: pyarrow.Schema, image: str) -> list[str]:
    """Return a different text for each row."""
    columns = [name for name in _ID_COLUMNS if name in schema.names and _is_scalar(schema.field(name).type)]
    type = schema.field(image).type
    if not columns and pyarrow.types.is_struct(type) and type.get_field_index("path") >= 0:
        columns = [f"{image}.path"]
    for column in columns[:1]:
        table = file.read(columns=[column], use_threads=False)
        values = table.column(0).to_pylist()
        if column not in schema.names:
            values = [None if value is None else value["path"] for value in values]
        if all(value not in (None, "") for value in values) and len(set(values)) == len(values):
            return [str(value) for value in values]
    return [f"{row:08d}" for row in range(file.metadata.num_rows)]


def _label_names(schema: pyarrow.Schema) -> dict[str, Sequence[str]]:
    """Return the names of numbered labels, by column, where Hugging Face's data sets have written them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if "names" in feature}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}

"""Files of codes: what a gallery stores of the images of one shard, in Parquet, each with its code under one encoder.

A row is an image: `id`, `media_type`, `width`, `height`, `sha256`, `metadata` (JSON), `image` (its bytes) and `code`
(float32). Of one that could not be used, `problem` says why, and only its id is there. A key `eigenlens` of the file's
metadata has, as JSON, the version of this format, the encoder's id and the code's length.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.artifact import fsync_directory
from eigenlens.model.errors import SourceError

if TYPE_CHECKING:
    import pyarrow

ENDING = ".codes.parquet"
_VERSION = 1
_KEY = b"eigenlens"
# A row group is written once there is so much of it; readers hold one in memory.
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 1024, 32 << 20
# A file that was begun and not written to for so long is left over of a process that was killed.
_ABANDONED_S = 3600.0


@dataclass(frozen=True)
class CodedImage:
    """An image with its code (code_length,); without both, and with a problem, if it could not be used."""

    id: str
    media_type: str = ""
    width: int = 0
    height: int = 0
    sha256: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    image: bytes | None = None
    code: NDArray[np.float32] | None = None
    problem: str | None = None


class CodesWriter:
    """Writes rows to a file of codes; `writing_codes_of_shard` makes one."""

    def __init__(self, writer: Any, schema: pyarrow.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._code_length = schema.field("code").type.list_size
        self._rows: list[CodedImage] = []
        self._bytes = 0

    def append(self, images: Sequence[CodedImage]) -> None:
        """Append images."""
        self._rows += images
        self._bytes += sum(len(image.image or b"") for image in images)
        if len(self._rows) >= _ROWS_AT_ONCE or self._bytes >= _BYTES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what was appended."""
        import pyarrow

        if self._rows:
            missing = np.array([row.code is None for row in self._rows])
            codes = np.zeros((len(self._rows), self._code_length), dtype=np.float32)
            codes[~missing] = [row.code for row in self._rows if row.code is not None] or 0
            columns: dict[str, Any] = {
                name: [getattr(row, name) for row in self._rows] for name in self._schema.names if name != "code"
            }
            columns["metadata"] = [json.dumps(metadata) for metadata in columns["metadata"]]
            columns["code"] = pyarrow.FixedSizeListArray.from_arrays(
                pyarrow.array(codes.ravel()), self._code_length, mask=pyarrow.array(missing)
            )
            self._writer.write_table(pyarrow.table(columns, schema=self._schema))
        self._rows, self._bytes = [], 0


@contextmanager
def writing_codes_of_shard(path: Path, *, encoder_id: str, code_length: int) -> Iterator[CodesWriter]:
    """Write a file of codes within the block: a reader sees all of it or none, and a kill leaves none."""
    import pyarrow
    import pyarrow.parquet

    _remove_abandoned(path)
    properties = {"version": _VERSION, "encoder": encoder_id, "code_length": code_length}
    schema = _schema(code_length).with_metadata({_KEY: json.dumps(properties)})
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_begun(path))
    try:
        with os.fdopen(handle, "wb") as file:
            # Images are compressed already, and codes hardly can be.
            with pyarrow.parquet.ParquetWriter(file, schema, compression="none", use_dictionary=False) as writer:
                rows = CodesWriter(writer, schema)
                yield rows
                rows.flush()
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


class CodesOfShard:
    """A file of codes, read a group of rows at a time.

    codes = CodesOfShard(Path("codes/0001.codes.parquet"))
    for group in range(codes.groups):
        images = codes.read(group)

    Attributes:
        encoder_id: id of the encoder.
        code_length: coordinates of a code.
        count: number of rows.
        groups: number of groups of rows.
    """

    def __init__(self, path: Path) -> None:
        """Read what the file says of itself. Raises: SourceError, for a damaged or another file."""
        import pyarrow.parquet

        self.path = path
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                properties = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"{}"))
                columns = file.schema_arrow.remove_metadata()
                self.count, self.groups = file.metadata.num_rows, file.metadata.num_row_groups
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise SourceError(f"{path} is no readable Parquet file: {error}") from None
        if not isinstance(properties, dict) or properties.get("version") != _VERSION:
            raise SourceError(f"{path} is no file of codes that `eigenlens encode` of this version writes")
        self.encoder_id, self.code_length = str(properties.get("encoder")), int(properties.get("code_length", 0))
        if not columns.equals(_schema(self.code_length)):
            raise SourceError(f"{path} has other columns than a file of codes")

    def ids(self, group: int) -> list[tuple[str, str]]:
        """Return the id and the checksum of each image of a group. Raises: SourceError."""
        table = self._table(group, ["id", "sha256"])
        return list(zip(table["id"].to_pylist(), table["sha256"].to_pylist(), strict=True))

    def read(self, group: int) -> list[CodedImage]:
        """Return the images of a group. Raises: SourceError."""
        table = self._table(group, None)
        coded = table["code"].combine_chunks()
        values: NDArray[np.float32] = coded.flatten().to_numpy(zero_copy_only=False)
        codes = iter(values.reshape(-1, self.code_length))
        images = []
        for row, is_coded in zip(table.drop_columns("code").to_pylist(), coded.is_valid().to_pylist(), strict=True):
            code = next(codes) if is_coded else None
            if code is not None and not np.isfinite(code).all():
                raise SourceError(f"{self.path}: the code of '{row['id']}' is not finite")
            images.append(CodedImage(**{**row, "metadata": json.loads(row["metadata"]), "code": code}))
        return images

    def _table(self, group: int, columns: list[str] | None) -> pyarrow.Table:
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                return file.read_row_group(group, columns=columns, use_threads=False)
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.path} cannot be read: {error}") from None


def find_codes(paths: Sequence[Path]) -> list[Path]:
    """Return the files of codes that are given or lie in a given folder, by name. Raises: SourceError."""
    files: list[Path] = []
    for path in paths:
        here = sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path] if path.is_file() else []
        if not here:
            raise SourceError(f"{path} holds no file of codes; `eigenlens encode` writes them, NAME{ENDING} each")
        files += here
    return files


def _schema(code_length: int) -> pyarrow.Schema:
    import pyarrow

    texts = [(name, pyarrow.string()) for name in ("id", "media_type", "sha256", "metadata", "problem")]
    numbers = [(name, pyarrow.int32()) for name in ("width", "height")]
    rest = [("image", pyarrow.binary()), ("code", pyarrow.list_(pyarrow.float32(), code_length))]
    return pyarrow.schema([*texts, *numbers, *rest])


def _begun(path: Path) -> str:
    return f".{path.name}-"


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes have begun of a file; what one writes to now stays."""
    for file in path.parent.glob(f"{_begun(path)}*"):
        if time.time() - file.stat().st_mtime > _ABANDONED_S:
            file.unlink(missing_ok=True)

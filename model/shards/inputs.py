"""Shards of images: tars and Parquet files, which of them a part of the work has, and opening one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eigenlens.model.errors import SourceError
from eigenlens.model.images.sources import DEFAULT_MAX_IMAGE_BYTES, Source, TarSource
from eigenlens.model.shards.codes import ENDING as CODES_ENDING

_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PARQUET = ".parquet"


@dataclass(frozen=True)
class Shard:
    """A file of images. Its name begins their ids and is the name of the file of their codes."""

    path: Path
    name: str

    def open(self, *, max_bytes: int = DEFAULT_MAX_IMAGE_BYTES) -> Source:
        """Open the images. Raises: SourceError; ModuleNotFoundError, for a Parquet file without pyarrow."""
        if self.path.name.lower().endswith(PARQUET):
            from eigenlens.model.shards.parquet import ParquetSource  # needs pyarrow, which tars do not

            return ParquetSource(self.path, prefix=f"{self.name}/", max_bytes=max_bytes)
        return TarSource(self.path, prefix=f"{self.name}/", max_bytes=max_bytes)


def find_shards(paths: Sequence[Path]) -> list[Shard]:
    """Return the shards that are given or lie in a given folder, by name. Raises: SourceError."""
    shards: dict[str, Shard] = {}
    for path in paths:
        if path.is_dir():
            files = [file for file in sorted(path.iterdir()) if _name_of(file) is not None and file.is_file()]
        else:
            files = [path]
        if not files:
            raise SourceError(f"{path} holds no shard: shards end in {', '.join((*_TARS, PARQUET))}")
        for file in files:
            name = _name_of(file)
            if not file.is_file() or name is None:
                there = "is no shard" if file.exists() else "does not exist"
                raise SourceError(f"{file} {there}: give files that end in {', '.join((*_TARS, PARQUET))}, or folders")
            if name in shards:
                raise SourceError(f"{shards[name].path} and {file} would both be {name}{CODES_ENDING}; rename one")
            shards[name] = Shard(file, name)
    return [shards[name] for name in sorted(shards)]


def shards_of_part(shards: Sequence[Shard], part: int, parts: int) -> list[Shard]:
    """Return the shards of one of `parts` parts, 0 to parts - 1: every shard is in exactly one."""
    return list(shards[part::parts])


def _name_of(path: Path) -> str | None:
    """Return the name of a shard without its ending; None for another file."""
    lower = path.name.lower()
    if path.name.startswith(".") or lower.endswith(CODES_ENDING):
        return None
    ending = next((ending for ending in (*_TARS, PARQUET) if lower.endswith(ending)), None)
    return path.name[: -len(ending)] or None if ending else None

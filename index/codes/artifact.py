"""The codes artifact: codes on disk, memory-mapped, and their writer."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.index.codes.prefix import ROUNDING_OF_NORM, Floats, round_to_unit_norm, squared_norms, unit_prefix
from eigenlens.index.codes.views import set_view
from eigenlens.index.errors import CodesError
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

KIND = "codes"
_CODES_FILE = "codes.npy"
_KEYS_FILE = "keys.npy"
_ORDER_FILE = "order.npy"
_NORMS_FILE = "norms.npy"


class Codes:
    """An opened codes artifact, memory-mapped.

        codes = Codes(Path("gallery/codes/000001"))
        rows = codes.rows_of(np.array([17, 4]))

    Attributes:
        codes: (n, code_length), float16, unit norm up to rounding (cosines do not depend on a code's norm).
        norms: (n,), float32: the norm of each code after rounding; 1 for a code of zeros.
        unnormalised_rows: rows whose norm is not 1 up to the rounding of float32; for all others, inner products are
            cosines.
        keys: (n,), int64: the gallery's key of each row. Rows are in any order; see building/row_order.py.
        code_length: coordinates of a code.
        encoder_id: id of the encoder that made the codes.
        tuning: limits of what is read, and stays mapped, at once.
    """

    def __init__(self, path: Path, *, verify: bool = True, tuning: Tuning = DEFAULT_TUNING) -> None:
        """Open the artifact at `path`. Raises: ArtifactError; CodesError."""
        self.artifact = artifact.read(path, kind=KIND, verify=verify)
        self.tuning = tuning
        self.id = self.artifact.id
        self.encoder_id = self.artifact.made_from["encoder"]
        codes = self._map(_CODES_FILE)
        self._mapping: mmap.mmap = codes._mmap  # type: ignore[attr-defined]
        self._offset = codes.offset
        # Plain arrays over the mappings: indexing a numpy.memmap takes microseconds longer.
        self.codes: NDArray[np.float16] = np.asarray(codes)
        norms = self._map(_NORMS_FILE)
        self.norms: NDArray[np.float32] = np.asarray(norms)
        self.keys: NDArray[np.int64] = np.asarray(self._map(_KEYS_FILE))
        self.unnormalised_rows: NDArray[np.int64] = np.flatnonzero(np.abs(self.norms - 1) > ROUNDING_OF_NORM)
        norms._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # searches read few of them
        self._order: NDArray[np.int64] = np.asarray(self._map(_ORDER_FILE))
        if self.codes.ndim != 2 or self.keys.shape != self.codes.shape[:1]:
            raise CodesError(f"{path} holds codes {self.codes.shape} and keys {self.keys.shape}, which do not match")
        self.code_length = int(self.codes.shape[1])

    def _map(self, name: str) -> np.memmap[Any, Any]:
        mapped: np.memmap[Any, Any] = np.load(self.artifact.file(name), mmap_mode="r", allow_pickle=False)
        return mapped

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def last_key(self) -> int:
        """The largest key; 0 without any codes."""
        return int(self.keys[self._order[-1]]) if len(self) else 0

    def rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each key, (m,); -1 for an unknown key."""
        if len(self) == 0:
            return np.full(len(keys), -1, dtype=np.int64)
        indices = np.minimum(np.searchsorted(self.keys, keys, sorter=self._order), len(self) - 1)
        rows = np.asarray(self._order[indices])
        return np.where(self.keys[rows] == keys, rows, -1)

    def read(self, start: int, stop: int) -> NDArray[np.float16]:
        """Read the codes of a range of rows from the file, not through its mapping, so that they do not stay mapped."""
        width = self.code_length
        offset = self._offset + 2 * width * start
        path = self.artifact.file(_CODES_FILE)
        return np.fromfile(path, dtype=np.float16, count=(stop - start) * width, offset=offset).reshape(-1, width)

    def runs(self, start: int, stop: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """Yield the rows from start to stop and their codes, run by run in the order of the file."""
        for begin in range(start, stop, self.tuning.rows_per_run):
            end = min(begin + self.tuning.rows_per_run, stop)
            yield np.arange(begin, end), self.read(begin, end)

    def sample(self, count: int) -> NDArray[np.float16]:
        """Read the codes of at most `count` equally spaced rows, (m, code_length), in one pass over the file."""
        step = max(1, -(-len(self) // count))
        parts = [codes[rows % step == 0] for rows, codes in self.runs(0, len(self))]
        return np.concatenate(parts) if parts else self.codes[:0]

    @property
    def exceeds_memory_budget(self) -> bool:
        """Whether the codes are larger than what may be in memory at once during a build."""
        return self.codes.nbytes > self.tuning.max_mapped_bytes

    def release_pages(self) -> None:
        """Release the pages of mapped codes that were read, if the codes are large; later reads map them again.

        The system would release them when it needs memory, but until then counts them as memory of this process.
        """
        if self.exceeds_memory_budget:
            self._mapping.madvise(mmap.MADV_DONTNEED)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Read the codes of any rows, (m, code_length); pages of large codes do not stay mapped."""
        if not self.exceeds_memory_budget:
            return self.codes[rows]
        return read_rows(self.artifact.file(_CODES_FILE), rows, code_length=self.code_length, offset=self._offset)

    def scan(self, stop: int, *, start: int = 0) -> faiss.Index:
        """Return the mapped codes from start to stop as a FAISS index that scans half-precision vectors.

        Nothing is copied, so the caller keeps these codes as long as the index.
        """
        return half_index(self.codes[start:stop])


def half_index(codes: NDArray[np.float16]) -> faiss.Index:
    """Return FAISS's flat index over half-precision codes (n, d), which are not copied and have to be kept."""
    index = faiss.IndexScalarQuantizer(codes.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    set_view(index.codes, codes.reshape(-1).view(np.uint8))
    index.ntotal = len(codes)
    return index


def read_rows(path: Path, rows: NDArray[np.int64], *, code_length: int, offset: int = 0) -> NDArray[np.float16]:
    """Read any rows of a file of half-precision codes, (m, code_length), not through a mapping.

    Mapping the pages around a row takes ten times as long, and they would stay in memory.
    """
    width = 2 * code_length
    with path.open("rb", buffering=0) as file:
        read = [os.pread(file.fileno(), width, offset + width * row) for row in rows.tolist()]
    return np.frombuffer(b"".join(read), dtype=np.float16).reshape(-1, code_length)


class CodesWriter:
    """Fills a codes artifact batch by batch."""

    def __init__(self, directory: Path, *, count: int, code_length: int) -> None:
        # Not through a mapping, whose pages would count as memory of this process.
        self._file = (directory / _CODES_FILE).open("wb")
        header = {"descr": "<f2", "fortran_order": False, "shape": (count, code_length)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._code_length = code_length
        self._keys = np.empty(count, dtype=np.int64)
        self._norms = np.empty(count, dtype=np.float32)
        self._directory = directory
        self.written = 0

    def append(self, keys: NDArray[np.int64], codes: Floats) -> None:
        """Add rows. Raises: CodesError, for a wrong shape, values that are not finite, or too many rows."""
        if codes.ndim != 2 or codes.shape != (len(keys), self._code_length):
            raise CodesError(f"expected codes ({len(keys)}, {self._code_length}), not {codes.shape}")
        if not np.isfinite(codes).all():
            raise CodesError("codes hold values that are not finite; the encoder is broken, or its export is")
        end = self.written + len(keys)
        if end > len(self._keys):
            raise CodesError(f"{end} codes where {len(self._keys)} were announced")
        rounded = round_to_unit_norm(unit_prefix(codes, codes.shape[1]))
        self._file.write(rounded.astype("<f2", copy=False).tobytes())
        norms = np.sqrt(squared_norms(rounded))
        self._norms[self.written : end] = np.where(norms > 0, norms, 1)
        self._keys[self.written : end] = keys
        self.written = end

    def __enter__(self) -> CodesWriter:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._file.close()
        if error is None:
            self._finish()

    def _finish(self) -> None:
        if self.written != len(self._keys):
            raise CodesError(f"{self.written} codes where {len(self._keys)} were announced")
        np.save(self._directory / _KEYS_FILE, self._keys)
        np.save(self._directory / _NORMS_FILE, self._norms)
        np.save(self._directory / _ORDER_FILE, np.argsort(self._keys, kind="stable"))


@contextmanager
def writing_codes(path: Path, *, count: int, code_length: int, encoder_id: str) -> Iterator[CodesWriter]:
    """Publish a codes artifact at `path`, whole or not at all. Raises: ArtifactExistsError; CodesError."""
    properties = {"count": count, "code_length": code_length, "dtype": "float16"}
    with (
        artifact.publishing(path, kind=KIND, made_from={"encoder": encoder_id}, properties=properties) as directory,
        CodesWriter(directory, count=count, code_length=code_length) as writer,
    ):
        yield writer

"""Codes on disk and their prefixes: sliced, then normalised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import artifact
from index.errors import CodesError

KIND = "codes"
_CODES_FILE = "codes.npy"
_KEYS_FILE = "keys.npy"

Floats = NDArray[np.floating]


def unit_prefix(codes: Floats, length: int) -> NDArray[np.float32]:
    """The first `length` coordinates of each code, scaled to unit norm afterwards: (n, length), float32.

    A prefix of zeros stays zero: its cosine with everything is 0.
    """
    prefix = np.array(codes[:, :length], dtype=np.float32, order="C")
    peaks = np.abs(prefix).max(axis=1, initial=0)
    extreme = (peaks > 0) & ((peaks > 1e15) | (peaks < 1e-15))  # their squares leave float32's range
    if extreme.any():
        prefix[extreme] /= peaks[extreme, None]
    norms = np.sqrt(np.einsum("ij,ij->i", prefix, prefix))
    prefix /= np.where(norms > 0, norms, 1)[:, None]
    return prefix


class Codes:
    """An opened codes artifact, memory-mapped.

    Attributes:
        codes: (n, code_length), float16, unit norm (cosines of prefixes do not depend on a code's norm).
        keys: (n,), int64, ascending: the gallery's key of each row.
        encoder_id: of the encoder that made them.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        self.artifact = artifact.read(path, kind=KIND, verify=verify)
        self.id = self.artifact.id
        self.encoder_id = self.artifact.made_from["encoder"]
        self.codes: NDArray[np.float16] = np.load(self.artifact.file(_CODES_FILE), mmap_mode="r", allow_pickle=False)
        self.keys: NDArray[np.int64] = np.load(self.artifact.file(_KEYS_FILE), mmap_mode="r", allow_pickle=False)
        if self.codes.ndim != 2 or self.keys.shape != self.codes.shape[:1]:
            raise CodesError(f"{path} holds codes {self.codes.shape} and keys {self.keys.shape}, which do not match")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def code_length(self) -> int:
        """Coordinates of a code."""
        return int(self.codes.shape[1])


class CodesWriter:
    """Fills a codes artifact batch by batch, in the order of keys."""

    def __init__(self, directory: Path, *, count: int, code_length: int) -> None:
        shape = (count, code_length)
        self._codes = np.lib.format.open_memmap(directory / _CODES_FILE, mode="w+", dtype=np.float16, shape=shape)
        self._keys = np.lib.format.open_memmap(directory / _KEYS_FILE, mode="w+", dtype=np.int64, shape=(count,))
        self.written = 0

    def append(self, keys: NDArray[np.int64], codes: Floats) -> None:
        """Add rows. Raises: CodesError, for a wrong shape, values that are not finite, or too many rows."""
        if codes.ndim != 2 or codes.shape != (len(keys), self._codes.shape[1]):
            raise CodesError(f"expected codes ({len(keys)}, {self._codes.shape[1]}), not {codes.shape}")
        if not np.isfinite(codes).all():
            raise CodesError("codes hold values that are not finite; the encoder is broken, or its export is")
        end = self.written + len(keys)
        if end > len(self._keys):
            raise CodesError(f"{end} codes where {len(self._keys)} were announced")
        self._codes[self.written : end] = unit_prefix(codes, codes.shape[1])
        self._keys[self.written : end] = keys
        self.written = end

    def close(self) -> None:
        """Flush to the files. Raises: CodesError, if fewer rows came than were announced."""
        if self.written != len(self._keys):
            raise CodesError(f"{self.written} codes where {len(self._keys)} were announced")
        self._codes.flush()
        self._keys.flush()


@contextmanager
def writing_codes(path: Path, *, count: int, code_length: int, encoder_id: str) -> Iterator[CodesWriter]:
    """Publish a codes artifact at `path`, whole or not at all. Raises: ArtifactExistsError; CodesError."""
    properties = {"count": count, "code_length": code_length, "dtype": "float16"}
    with artifact.publishing(path, kind=KIND, made_from={"encoder": encoder_id}, properties=properties) as directory:
        writer = CodesWriter(directory, count=count, code_length=code_length)
        yield writer
        writer.close()

"""Codes in fewer bits, from which the shortlists of a build for memory are rescored.

Each coordinate has 8 bits, 4 or none, by its variance: the first coordinates of an ordered code carry most of a score,
and the last ones next to nothing. FAISS scores such codes as codes of 4 bits, of which a coordinate of 8 bits is two:
its high and its low half, each multiplied with the same coordinate of the query. The true codes stay on disk in half
precision. They score the last few candidates of each search, so that the cosines that it returns are exact.

Source: allocation of bits by variance: Gersho and Gray, Vector Quantization and Signal Compression, 1992, section 8.3.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.views import set_view
from eigenlens.index.errors import SearchError
from eigenlens.index.threads import all_cores

CODES_FILE, QUANTIZER_FILE = "compact-codes.npy", "compact-quantizer.faiss"
_BITS_OF_COORDINATE = 4.5  # on average
_STEP_BITS = 4
_MAX_8, _MAX_4 = 255, 15  # FAISS divides the range of a coordinate so
# Bytes of queries' candidates that are decoded at once.
_DECODED_BYTES = 1 << 26


def compact_bytes(code_length: int) -> int:
    """Return the bytes of a compact code."""
    return max(1, round(_BITS_OF_COORDINATE * code_length / 8))


class CompactCodes:
    """Compact codes of all rows, memory-mapped. Several threads may search at once.

    Attributes:
        codes: (n, code_size), uint8.
        code_size: bytes of a code.
        quantizer: FAISS's, which decodes them.
        expansion: the coordinate of a full code that each decoded one is of, (decoded,).
    """

    def __init__(self, directory: Path, *, count: int, code_length: int) -> None:
        """Open the compact codes in a directory. Raises: SearchError, if these are not `count` codes of that length."""
        path = directory / CODES_FILE
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise SearchError(f"numpy cannot read {path}: {error}") from error
        path = directory / QUANTIZER_FILE
        try:
            self._empty = faiss.read_index(str(path))
        except RuntimeError as error:
            raise SearchError(f"FAISS cannot read {path}: {error}") from error
        self._scalar = faiss.downcast_index(self._empty.index)
        self.code_size = int(self._scalar.code_size)
        if self._empty.d != code_length or mapped.shape != (count, self.code_size) or mapped.dtype != np.uint8:
            raise SearchError(f"{directory} holds compact codes {mapped.shape} of {self._empty.d} coordinates")
        self._mapping: mmap.mmap = mapped._mmap
        self.codes: NDArray[np.uint8] = np.asarray(mapped)
        self.quantizer = self._scalar.sq
        self._halves = faiss.downcast_VectorTransform(self._empty.chain.at(0))
        self.expansion: NDArray[np.int64] = faiss.vector_to_array(self._halves.map).astype(np.int64)

    def scan(self, stop: int) -> faiss.Index:
        """Return FAISS's index of the rows before `stop`: full codes in, inner products out; these codes are kept."""
        index = faiss.clone_index(self._empty)
        scalar = faiss.downcast_index(index.index)
        set_view(scalar.codes, self.codes[:stop].reshape(-1))
        scalar.ntotal = index.ntotal = stop
        return index

    def score(self, queries: NDArray[np.float32], rows: NDArray[np.int64], *, codes: Codes) -> NDArray[np.float32]:
        """Return the inner product of each unit query (q, code_length) with each of its rows (q, m): (q, m).

        Args:
            codes: that these are of: pages of large codes do not stay mapped.
        """
        scores = np.empty(rows.shape, dtype=np.float32)
        step = max(1, _DECODED_BYTES // max(1, 4 * self._scalar.d * rows.shape[1]))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            decoded = self.quantizer.decode(self.codes[some.reshape(-1)]).reshape(*some.shape, -1)
            expanded = self._halves.apply(queries[start : start + step])
            scores[start : start + step] = np.einsum("qmd,qd->qm", decoded, expanded)
            if codes.exceeds_memory_budget:
                self._mapping.madvise(mmap.MADV_DONTNEED)
        return scores


def write_compact_codes(directory: Path, codes: Codes, *, sample: NDArray[np.float16]) -> None:
    """Write the compact codes of all rows into a directory; one run of the codes is in memory at a time.

    Args:
        sample: some of the codes, (m, code_length), which the quantiser is trained on.
    """
    wide, narrow = allocate_bits(sample.astype(np.float32).var(axis=0))
    of_8 = _trained(sample, wide, faiss.ScalarQuantizer.QT_8bit)
    of_4 = _trained(sample, narrow, faiss.ScalarQuantizer.QT_4bit)
    faiss.write_index(_quantizer(codes.code_length, wide, narrow, of_8, of_4), str(directory / QUANTIZER_FILE))
    with (directory / CODES_FILE).open("wb") as file:
        shape = len(codes), of_8.code_size + of_4.code_size
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for _, run in codes.runs(0, len(codes)):
            with all_cores():
                parts = [_encode(of_8, run, wide), _encode(of_4, run, narrow)]
            file.write(np.hstack(parts).tobytes())


def allocate_bits(variances: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the coordinates that have 8 bits each, and those that have 4, so that the squared error is least.

    Four bits more divide a coordinate's squared error by 256: bits go where that is most, until all are given.
    """
    length = len(variances)
    steps = 2 * compact_bytes(length)
    gains = np.concatenate([variances, variances / 2 ** (2 * _STEP_BITS)])
    chosen = np.argsort(-gains, kind="stable")[:steps]
    given = np.bincount(chosen % length, minlength=length)
    return np.flatnonzero(given == 2), np.flatnonzero(given == 1)


def _trained(sample: NDArray[np.float16], coordinates: NDArray[np.int64], kind: int) -> faiss.ScalarQuantizer:
    """Return a quantiser of some coordinates, each with a range of its own."""
    quantizer = faiss.ScalarQuantizer(len(coordinates), kind)
    quantizer.train(np.ascontiguousarray(sample[:, coordinates], dtype=np.float32))
    return quantizer


def _encode(
    quantizer: faiss.ScalarQuantizer, codes: NDArray[np.float16], coordinates: NDArray[np.int64]
) -> NDArray[np.uint8]:
    encoded: NDArray[np.uint8] = quantizer.compute_codes(np.ascontiguousarray(codes[:, coordinates], dtype=np.float32))
    return encoded


def _quantizer(
    code_length: int,
    wide: NDArray[np.int64],
    narrow: NDArray[np.int64],
    of_8: faiss.ScalarQuantizer,
    of_4: faiss.ScalarQuantizer,
) -> faiss.Index:
    """Return the empty index that reads the bytes of both quantisers as codes of 4 bits."""
    least_8, range_8 = faiss.vector_to_array(of_8.trained).reshape(2, -1)
    least_4, range_4 = faiss.vector_to_array(of_4.trained).reshape(2, -1)
    # FAISS decodes a number c of 8 bits as least + (c + 1/2) range / 255, and one of 4 bits with 15 in place of 255. In
    # a byte, c = low + 16 high: (low + 1/2) step + (high + 1/2) 16 step is what it decodes, and 8 steps too much.
    step = range_8 / _MAX_8
    least_halves = np.stack([np.zeros_like(step), least_8 - 8 * step], axis=1)
    range_halves = np.stack([_MAX_4 * step, 16 * _MAX_4 * step], axis=1)
    trained = [least_halves.ravel(), least_4, range_halves.ravel(), range_4]
    source = np.concatenate([wide.repeat(2), narrow]).astype(np.int32)
    scalar = faiss.IndexScalarQuantizer(len(source), faiss.ScalarQuantizer.QT_4bit, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(np.concatenate(trained).astype(np.float32), scalar.sq.trained)
    scalar.is_trained = True
    halves = faiss.RemapDimensionsTransform(code_length, len(source), False)
    faiss.copy_array_to_vector(source, halves.map)
    index = faiss.IndexPreTransform(scalar)
    index.prepend_transform(halves)
    return index

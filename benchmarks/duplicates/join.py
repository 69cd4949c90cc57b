"""The join of many codes, beside all pairs of a sample of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.duplicates import connect, find_links

_DIMENSIONS = 128
_PLANTED_SHARE = 0.01
_SAMPLE = 20_000
_BLOCK = 1000
# Width of a planted copy's noise, in the length of its code: its cosine with the original is about 0.99.
_NOISE = 0.14
_CLUSTERS = 1000

Codes = NDArray[np.float16]


class StoredCodes:
    """Codes (n, 128), as a gallery has them: float16, by key, here the row."""

    code_length = _DIMENSIONS

    def __init__(self, codes: Codes) -> None:
        """Answer with these codes."""
        self._codes = codes

    def codes_of(self, keys: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Return the codes of rows."""
        return dict(zip(keys, self._codes[np.asarray(keys)].astype(np.float32), strict=True))


def synthetic_codes(count: int, *, seed: int) -> Codes:
    """Return unit codes (count, 128) with a falling spectrum, in clusters; the last hundredth are copies of the first.

    A copy differs from its original by noise, so that their cosine is about 0.99.
    """
    rng = np.random.default_rng(seed)
    spectrum = (1 + np.arange(_DIMENSIONS) / 8) ** -0.5
    centres = rng.standard_normal((_CLUSTERS, _DIMENSIONS), dtype=np.float32)
    codes = np.empty((count, _DIMENSIONS), dtype=np.float16)
    copies = int(_PLANTED_SHARE * count)
    for start in range(0, count, 50_000):
        stop = min(count, start + 50_000)
        nearby = rng.standard_normal((stop - start, _DIMENSIONS), dtype=np.float32)
        drawn = (centres[rng.integers(_CLUSTERS, size=stop - start)] + nearby) * spectrum
        codes[start:stop] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    noise = rng.standard_normal((copies, _DIMENSIONS)) * spectrum
    noise *= _NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    codes[count - copies :] = codes[:copies] + noise
    return codes


def measure_join(count: int, *, cosine: float, seed: int) -> dict[str, tuple[float, str]]:
    """Join synthetic codes, and compare the groups of a sample with those of all its pairs.

    Returns: by name, values and their units: seconds of the join; the share of all pairs whose prefixes it compares;
        how many times longer all pairs would take, as the sample's pairs do; the share of the sample's groups that are
        those of all pairs; the share of planted copies in a group with their original.
    """
    codes = synthetic_codes(count, seed=seed)
    copies = int(_PLANTED_SHARE * count)
    started = time.perf_counter()
    links = find_links(StoredCodes(codes), np.arange(count), cosine=cosine)
    seconds = time.perf_counter() - started
    group_of = {row: number for number, group in enumerate(connect(links.pairs)) for row in group}

    # Originals and their copies are in the sample, so that it has groups.
    some = min(_SAMPLE // 4, copies)
    others = np.arange(some, max(some, min(count - some, _SAMPLE - some)))
    sample = np.concatenate([np.arange(some), others, count - copies + np.arange(some)])
    joined = find_links(StoredCodes(codes[sample]), np.arange(len(sample)), cosine=cosine).pairs
    started = time.perf_counter()
    pairs = _all_pairs(codes[sample], cosine)
    pair_seconds = (time.perf_counter() - started) / (len(sample) * (len(sample) - 1) / 2)
    expected = {tuple(group) for group in connect(pairs)}
    same = len(expected & {tuple(group) for group in connect(joined)})

    unit = codes[:copies].astype(np.float32), codes[count - copies :].astype(np.float32)
    cosines = np.einsum("ij,ij->i", *unit) / np.prod([np.linalg.norm(codes, axis=1) for codes in unit], axis=0)
    near = np.flatnonzero(cosines >= cosine)
    met = sum(group_of.get(int(row), -1) == group_of.get(int(count - copies + row), -2) for row in near)
    all_pairs = count * (count - 1) / 2
    return {
        "seconds": (round(seconds, 1), "s"),
        "compared_share": (links.compared / all_pairs, ""),
        "times_cheaper": (round(pair_seconds * all_pairs / seconds, 1), ""),
        "same_groups": (same / max(1, len(expected)), ""),
        "sample_groups": (len(expected), ""),
        "planted_recall": (met / max(1, len(near)), ""),
        "groups": (len(set(group_of.values())), ""),
    }


def _all_pairs(codes: Codes, cosine: float) -> list[tuple[int, int]]:
    """Return all pairs of rows whose codes have the cosine, by all inner products."""
    unit = codes.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(unit), _BLOCK):
        a, b = np.nonzero(unit[start : start + _BLOCK] @ unit[start:].T >= cosine)
        pairs += [(int(x) + start, int(y) + start) for x, y in zip(a, b, strict=True) if y > x]
    return pairs

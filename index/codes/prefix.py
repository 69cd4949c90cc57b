"""Prefixes of codes: sliced, then normalised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A norm differs from 1 by no more than this if it is 1 up to the rounding of float32.
ROUNDING_OF_NORM = 5e-7
# Largest number of coordinates of a code that are rounded the other way; most codes need three.
_NUDGES = 24
_FEW_NUDGES, _ENOUGH_TO_NUDGE, _LEADING = 4, 64, 16
# Outside of these norms, squares may overflow or underflow float32.
_SMALL, _LARGE = 1e-15, 1e15

Floats = NDArray[np.floating]


def unit_prefix(codes: Floats, length: int) -> NDArray[np.float32]:
    """Return the first `length` coordinates of each code, scaled to unit norm: (n, length), float32.

    A prefix of zeros stays zero: its cosine with everything is 0.
    """
    prefix = np.array(codes[:, :length], dtype=np.float32, order="C")
    norms = np.sqrt(np.einsum("ij,ij->i", prefix, prefix))
    if len(norms) and not (norms.min() > _SMALL and norms.max() < _LARGE):
        peaks = np.abs(prefix).max(axis=1, initial=0)
        prefix /= np.where(peaks > 0, peaks, 1)[:, None]
        norms = np.sqrt(np.einsum("ij,ij->i", prefix, prefix))
        norms[norms == 0] = 1
    prefix /= norms[:, None]
    return prefix


def round_to_unit_norm(codes: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round unit codes (n, d) to half precision, a few coordinates the other way, so that each norm is 1 again.

    The norm is then 1 up to the rounding of float32, and inner products are cosines without a division by norms. It is
    not for codes of fewer than 64 coordinates, which have too few to choose from, and for codes that are almost zero in
    all coordinates but one.
    """
    rounded = codes.astype(np.float16)
    if codes.shape[1] < _ENOUGH_TO_NUDGE:
        return rounded
    missing = 1 - squared_norms(rounded)
    # First try the leading coordinates, which are the largest, and every eighth of the others for fine corrections.
    some = np.concatenate([np.arange(_LEADING), np.arange(_LEADING, codes.shape[1], 8)])
    wrong = np.flatnonzero(np.abs(missing) < 0.5)  # not a code of zeros
    for attempt in range(_NUDGES):
        wrong = wrong[np.abs(missing[wrong]) > ROUNDING_OF_NORM]
        if not len(wrong):
            break
        columns = some if attempt < _FEW_NUDGES else np.arange(codes.shape[1])
        present = rounded[wrong[:, None], columns]
        # The next number away from zero has the next higher bit pattern.
        moved = (present.view(np.int16) + np.sign(missing[wrong]).astype(np.int16)[:, None]).view(np.float16)
        gains = moved.astype(np.float64) ** 2 - present.astype(np.float64) ** 2
        gains[present == 0] = 0
        if attempt < _NUDGES // 2:  # first allow only changes towards the unrounded code
            short = np.abs(codes[wrong[:, None], columns]) > np.abs(present)
            gains[short != (missing[wrong] > 0)[:, None]] = 0
        best = np.abs(missing[wrong, None] - gains).argmin(1)
        at = np.arange(len(wrong))
        rounded[wrong, columns[best]] = np.where(gains[at, best] != 0, moved[at, best], present[at, best])
        missing[wrong] -= gains[at, best]
    return rounded


def squared_norms(codes: Floats) -> NDArray[np.float64]:
    """Return the squared norm of each code (n, d) in double precision: (n,)."""
    return np.asarray(np.einsum("ij,ij->i", codes, codes, dtype=np.float64))

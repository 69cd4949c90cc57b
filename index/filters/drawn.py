"""Rows drawn at random, the same each time: the filters under which calibration measures a server's plans."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_SHARES = (0.02, 0.5)


def drawn_shares(count: int, *, scored_directly: int) -> tuple[float, ...]:
    """Return the shares of all rows that are drawn, ascending: 2 and 50 %, or the least that is not scored row by row.

    Args:
        count: of all rows.
        scored_directly: the most rows of a filter that are all scored, so that no plan has anything to do with it.
    """
    least = math.ceil(100 * (scored_directly + 1) / max(1, count)) / 100
    return tuple(sorted({max(share, least) for share in _SHARES if least < 1}))


def is_drawn(start: int, stop: int, share: float) -> NDArray[np.bool_]:
    """Return whether each row of a range is drawn, (stop - start,); those of a smaller share are among them."""
    numbers = np.random.Generator(np.random.PCG64(0).advance(start))
    return numbers.random(stop - start) < share

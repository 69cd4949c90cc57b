"""Which kind of index each prefix length of a gallery gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eigenlens.index.errors import IndexKindError
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.plans.plan import IndexSpec
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

# Above this many codes full float32 vectors take too much memory.
_MAX_CODES_AS_FLOAT32 = 3_000_000
# From so many coordinates 4 bits of each are enough to find a shortlist.
_MIN_LENGTH_FOR_4_BITS = 32
# A shorter code is scored as soon as a part of it.
_MIN_LENGTH_TO_PRUNE = 16


def choose_indexes(
    count: int,
    *,
    lengths: Sequence[int],
    kinds: Mapping[int, str] | None = None,
    gpu: bool = False,
    tuning: Tuning = DEFAULT_TUNING,
) -> tuple[IndexSpec, ...]:
    """Return the indexes to build for `count` codes: one for each length, of the kind asked for or the one that suits.

    Args:
        gpu: whether a GPU searches them, where it can.

    Raises: IndexKindError, for an unknown kind, or one for a length that is not built.
    """
    full = max(lengths)
    kinds = dict(kinds or {})
    for length, kind in kinds.items():
        if not require_kind(kind).has_file and length != full:
            raise IndexKindError(f"kind '{kind}' scans the codes themselves: for length {full} only")
        if length not in lengths:
            raise IndexKindError(
                f"kind '{kind}' for length {length}, which is not built: {', '.join(map(str, lengths))}"
            )
    return tuple(
        IndexSpec(n, kinds.get(n) or _suitable_kind(count, n, full=n == full, gpu=gpu, tuning=tuning))
        for n in sorted(lengths)
    )


def _suitable_kind(count: int, length: int, *, full: bool, gpu: bool, tuning: Tuning) -> str:
    """Return what suits: exact scans of few codes, lists of many; of full codes what finds the true nearest.

    A GPU knows neither an index that prunes nor 4 bits a coordinate.
    """
    if full:
        if count > _MAX_CODES_AS_FLOAT32:
            return "half"
        return "panorama" if length >= _MIN_LENGTH_TO_PRUNE and not gpu else "flat"
    if count < tuning.min_codes_for_ivf:
        return "flat"
    return "ivf-pq" if length >= _MIN_LENGTH_FOR_4_BITS and not gpu else "ivf-sq8"

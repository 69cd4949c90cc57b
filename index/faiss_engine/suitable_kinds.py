"""The choice of a kind of index for each prefix length of a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eigenlens.index.errors import IndexKindError
from eigenlens.index.faiss_engine.kinds import require_kind
from eigenlens.index.plans.plan import IndexSpec, Optimise
from eigenlens.index.tuning import DEFAULT_TUNING, Tuning

# For more codes than this, full float32 vectors take too much memory on a GPU.
_MAX_CODES_AS_FLOAT32 = 3_000_000
# From this length on, 4 bits of each coordinate are enough to find a shortlist.
_MIN_LENGTH_FOR_4_BITS = 32
# Scoring a part of a shorter code takes as long as scoring all of it.
_MIN_LENGTH_TO_PRUNE = 16


def choose_indexes(
    count: int,
    *,
    lengths: Sequence[int],
    kinds: Mapping[int, str] | None = None,
    gpu: bool = False,
    tuning: Tuning = DEFAULT_TUNING,
) -> tuple[IndexSpec, ...]:
    """Return the indexes to build for `count` codes, one for each length.

    Args:
        kinds: kinds by length; lengths that are not in it get a suitable kind.
        gpu: whether a GPU searches the indexes that it can.

    Raises: IndexKindError, for an unknown kind, a length that is not built, or a kind for full codes of a shorter one.
    """
    full = max(lengths)
    kinds = dict(kinds or {})
    for length, kind in kinds.items():
        if not require_kind(kind).filters:
            raise IndexKindError(
                f"kind '{kind}' is a graph beside the indexes of the lengths: leave it out, and build with "
                "--optimise latency"
            )
        if require_kind(kind).scores_codes and length != full:
            raise IndexKindError(f"kind '{kind}' scores full codes: for length {full} only")
        if length not in lengths:
            raise IndexKindError(
                f"kind '{kind}' for length {length}, which is not built: {', '.join(map(str, lengths))}"
            )
    return tuple(
        IndexSpec(n, kinds.get(n) or _suitable_kind(count, n, full=n == full, gpu=gpu, tuning=tuning))
        for n in sorted(lengths)
    )


def suits_compact_codes(count: int, *, optimise: Optimise, gpu: bool = False, tuning: Tuning = DEFAULT_TUNING) -> bool:
    """Whether a build of `count` codes has compact ones: a build for memory, of many codes, that no GPU searches."""
    return optimise == "memory" and not gpu and count >= tuning.min_codes_for_ivf


def _suitable_kind(count: int, length: int, *, full: bool, gpu: bool, tuning: Tuning) -> str:
    """Return a suitable kind: for full codes one that finds the true nearest; else a scan of few codes, lists of many.

    A GPU can search neither an index that prunes nor 4 bits a coordinate.
    """
    if full:
        if gpu:
            return "half" if count > _MAX_CODES_AS_FLOAT32 else "flat"
        return "va-file" if length >= _MIN_LENGTH_TO_PRUNE else "flat"
    if count < tuning.min_codes_for_ivf:
        return "flat"
    return "ivf-pq" if length >= _MIN_LENGTH_FOR_4_BITS and not gpu else "ivf-sq8"

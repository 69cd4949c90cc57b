"""The kinds of FAISS index that a prefix can be searched with, and which one suits a gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import faiss

from index.errors import IndexKindError

# Below this many codes a flat scan of a short prefix costs no more than the call itself.
_WORTH_LISTS = 20_000
# k-means wants some tens of training vectors for each list.
_MIN_VECTORS_PER_LIST = 39
# Fewer vectors do not train a product quantiser.
_WORTH_QUANTISING = 256
# Above this many codes a graph takes too long to build, and full float32 vectors too much memory.
_MOST_IN_MEMORY = 3_000_000
_ENOUGH_ENERGY = 0.85
# Panorama keeps vectors, and at most so many results, in batches of this size.
_PANORAMA_BATCH = 1024


@dataclass(frozen=True)
class Kind:
    """One kind of index.

    Attributes:
        name: as plans, manifests and the API call it.
        effort: what its effort counts: "nprobe" (lists visited), "efSearch" (candidates kept); None if it has none.
        lossy: whether it keeps codes approximately; what it finds is then always rescored from the codes themselves.
        factory: FAISS factory string for `count` codes of `length` coordinates; None if the codes themselves are the
            index and no file is needed, which is possible for the full length only.
        most: results that it gives at once at most; None without a limit.
        mapped: whether FAISS maps its file; one that it reads into memory is opened by the first search that needs it.
    """

    name: str
    effort: str | None
    lossy: bool
    factory: Callable[[int, int], str] | None
    most: int | None = None
    mapped: bool = True

    @property
    def exact(self) -> bool:
        """Whether, looking at everything, it finds the true nearest by the prefix that it holds."""
        return not self.lossy or self.factory is None


def list_count(count: int) -> int:
    """Inverted lists for so many codes: a power of two near 4 sqrt(n), with enough vectors each to train."""
    lists = 1
    while lists * lists < 12 * count and 2 * lists * _MIN_VECTORS_PER_LIST <= count and lists < 65_536:
        lists *= 2
    return lists


def _panorama(_: int, length: int) -> str:
    levels = next(levels for levels in (16, 8, 4, 2, 1) if length % levels == 0)
    return f"FlatIPPanorama{levels}_{_PANORAMA_BATCH}"


def _product(count: int, length: int) -> str:
    if count < _WORTH_QUANTISING:
        return "Flat"
    return f"PQ{length // 2 if length % 2 == 0 else length}x4fs"


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("flat", None, False, lambda count, length: "Flat"),
        Kind("panorama", None, False, _panorama, most=_PANORAMA_BATCH, mapped=False),
        Kind("half", None, True, None),
        Kind("sq8", None, True, lambda count, length: "SQ8"),
        Kind("ivf", "nprobe", False, lambda count, length: f"IVF{list_count(count)},Flat"),
        Kind("ivf-sq8", "nprobe", True, lambda count, length: f"IVF{list_count(count)},SQ8"),
        Kind("ivf-pq", "nprobe", True, lambda count, length: f"IVF{list_count(count)},{_product(count, length)}"),
        Kind("ivf-rabitq", "nprobe", True, lambda count, length: f"IVF{list_count(count)},RaBitQ"),
        Kind("hnsw", "efSearch", True, lambda count, length: "HNSW16,SQ8"),
    )
}


def require_kind(name: str) -> Kind:
    """The kind of that name. Raises: IndexKindError, which lists the names there are."""
    if name not in KINDS:
        raise IndexKindError(f"there is no index kind '{name}'; available: {', '.join(KINDS)}")
    return KINDS[name]


@dataclass(frozen=True, order=True)
class IndexSpec:
    """Which kind of index a prefix length gets."""

    length: int
    kind: str


def choose_indexes(
    count: int,
    *,
    lengths: Sequence[int],
    kinds: Mapping[int, str] | None = None,
    energy: Mapping[int, float] | None = None,
) -> tuple[IndexSpec, ...]:
    """The indexes to build for `count` codes: one for each length, of the kind asked for or the one that suits.

    Args:
        energy: mean share of a unit code's squared norm in its leading coordinates, by length, as it is known.

    Raises: IndexKindError, for an unknown kind, or one for a length that is not built.
    """
    wanted = dict(kinds or {})
    for length, kind in wanted.items():
        if require_kind(kind).factory is None and length != max(lengths):
            raise IndexKindError(f"kind '{kind}' scans the codes themselves: for length {max(lengths)} only")
        if length not in lengths:
            raise IndexKindError(
                f"kind '{kind}' for length {length}, which is not built: {', '.join(map(str, lengths))}"
            )
    best = min((n for n in lengths if (energy or {}).get(n, 0.0) >= _ENOUGH_ENERGY), default=None)
    return tuple(
        IndexSpec(n, wanted.get(n) or _suitable(count, n, full=n == max(lengths), best=n == best))
        for n in sorted(lengths)
    )


def _suitable(count: int, length: int, *, full: bool, best: bool) -> str:
    """What suits: exact scans of few codes; of many, a graph at the shortest length that nearly is the code."""
    if full:
        return "half" if count > _MOST_IN_MEMORY else "panorama" if length >= 16 else "flat"
    if count < _WORTH_LISTS:
        return "flat"
    return "hnsw" if best and count <= _MOST_IN_MEMORY else "ivf-sq8"


def search_parameters(
    kind: Kind, *, effort: int | None, selector: faiss.IDSelector | None
) -> faiss.SearchParameters | None:
    """FAISS's parameters of one call; nothing is ever set on a shared index."""
    given = {} if selector is None else {"sel": selector}
    if kind.name == "ivf-rabitq":
        return faiss.IVFRaBitQSearchParameters(nprobe=effort, **given)
    if kind.effort == "nprobe":
        return faiss.SearchParametersIVF(nprobe=effort, **given)
    if kind.effort == "efSearch":
        return faiss.SearchParametersHNSW(efSearch=effort, **given)
    return faiss.SearchParameters(**given) if given else None

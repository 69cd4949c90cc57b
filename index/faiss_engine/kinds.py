"""The kinds of FAISS index that a prefix can be searched with, and which one suits a gallery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import faiss

from eigenlens.index.errors import IndexKindError
from eigenlens.index.plans.plan import IndexSpec

# Below this many codes a flat scan of a short prefix costs no more than the call itself.
_WORTH_LISTS = 20_000
# k-means wants some tens of training vectors for each list.
_MIN_VECTORS_PER_LIST = 39
# Fewer vectors do not train a product quantiser.
_WORTH_QUANTISING = 256
# Above this many codes full float32 vectors take too much memory.
_MOST_IN_MEMORY = 3_000_000
# Beyond so many lists a graph over their centroids finds the nearest sooner than a scan of them.
_MOST_SCANNED_LISTS = 1024
# From so many coordinates 4 bits of each are enough to find a shortlist.
_WORTH_4_BITS = 32
# Panorama keeps vectors, and at most so many results, in batches of this size, or of a larger one where there are many
# vectors: a batch costs as much as some hundreds of them.
_PANORAMA_BATCH, _LARGEST_BATCH = 1024, 65_536
# There are so many at least: the last is filled up, and the first is scored whole where no bound is known.
_BATCHES = 32


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
        prunes: whether it leaves out early what cannot score as high as is known to be had.
        gpu: whether FAISS can search it on a GPU.
    """

    name: str
    effort: str | None
    lossy: bool
    factory: Callable[[int, int], str] | None
    most: int | None = None
    mapped: bool = True
    prunes: bool = False
    gpu: bool = False

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


def _lists(count: int) -> str:
    lists = list_count(count)
    # Centroids in half precision stay in the cache between searches, and quantise as well.
    return f"IVF{lists}(HNSW16,SQfp16)" if lists > _MOST_SCANNED_LISTS else f"IVF{lists}"


def _panorama(count: int, length: int) -> str:
    batch = _PANORAMA_BATCH
    while batch < _LARGEST_BATCH and 2 * batch * _BATCHES <= count:
        batch *= 2
    levels = next(levels for levels in (16, 8, 4, 2, 1) if length % levels == 0)
    return f"FlatIPPanorama{levels}_{batch}"


def _fast_scan(count: int, length: int) -> str:
    if count < _WORTH_QUANTISING:
        return f"{_lists(count)},Flat"
    return f"{_lists(count)},PQ{length}x4fsr"  # 4 bits of each coordinate of what its list's centroid leaves


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("flat", None, False, lambda count, length: "Flat", gpu=True),
        Kind("panorama", None, False, _panorama, most=_PANORAMA_BATCH, mapped=False, prunes=True),
        Kind("half", None, True, None),
        Kind("sq8", None, True, lambda count, length: "SQ8"),
        Kind("ivf", "nprobe", False, lambda count, length: f"{_lists(count)},Flat", gpu=True),
        Kind("ivf-sq8", "nprobe", True, lambda count, length: f"{_lists(count)},SQ8", gpu=True),
        Kind("ivf-pq", "nprobe", True, _fast_scan, mapped=False),
        Kind("ivf-rabitq", "nprobe", True, lambda count, length: f"{_lists(count)},RaBitQ"),
        Kind("hnsw", "efSearch", True, lambda count, length: "HNSW16,SQ8"),
    )
}


def require_kind(name: str) -> Kind:
    """The kind of that name. Raises: IndexKindError, which lists the names there are."""
    if name not in KINDS:
        raise IndexKindError(f"there is no index kind '{name}'; available: {', '.join(KINDS)}")
    return KINDS[name]


def choose_indexes(
    count: int, *, lengths: Sequence[int], kinds: Mapping[int, str] | None = None, gpu: bool = False
) -> tuple[IndexSpec, ...]:
    """The indexes to build for `count` codes: one for each length, of the kind asked for or the one that suits.

    Args:
        gpu: whether a GPU searches them, where it can.

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
    full = max(lengths)
    return tuple(IndexSpec(n, wanted.get(n) or _suitable(count, n, full=n == full, gpu=gpu)) for n in sorted(lengths))


def _suitable(count: int, length: int, *, full: bool, gpu: bool) -> str:
    """What suits: exact scans of few codes, lists of many; of full codes what finds the true nearest.

    A GPU knows neither an index that prunes nor 4 bits a coordinate.
    """
    if full:
        return "half" if count > _MOST_IN_MEMORY else "panorama" if length >= 16 and not gpu else "flat"
    if count < _WORTH_LISTS:
        return "flat"
    return "ivf-pq" if length >= _WORTH_4_BITS and not gpu else "ivf-sq8"


def search_parameters(
    kind: Kind, *, effort: int | None, selector: faiss.IDSelector | None
) -> faiss.SearchParameters | None:
    """FAISS's parameters of one call; nothing is ever set on a shared index."""
    given = {} if selector is None else {"sel": selector}
    if (
        kind.effort == "nprobe"
    ):  # a graph over the lists keeps as many candidates as lists are visited; a scan ignores it
        given["quantizer_params"] = faiss.SearchParametersHNSW(efSearch=effort)
    if kind.name == "ivf-rabitq":
        return faiss.IVFRaBitQSearchParameters(nprobe=effort, **given)
    if kind.effort == "nprobe":
        return faiss.SearchParametersIVF(nprobe=effort, **given)
    if kind.effort == "efSearch":
        return faiss.SearchParametersHNSW(efSearch=effort, **given)
    return faiss.SearchParameters(**given) if given else None

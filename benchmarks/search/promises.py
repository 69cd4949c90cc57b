"""`eigenlens bench promises`: whether recall targets hold for every k, under filters, and in a gallery that changed.

Queries are images of the gallery, which are left out of their own results. The codes are indexed anew, with a random
number beside each image's label to filter by. Filters are for the query, against it, or have nothing to do with it. The
gallery changes by many images that are added, each a mean of two images of a label, and by half of its images that are
removed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.index.building.build import BuildOptions, build_generation
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.index.faiss_engine.generation import Generation
from eigenlens.index.filters.parse import Filter, parse_filter
from eigenlens.index.live.engine import LiveEngine
from eigenlens.index.plans.choice import PlanChooser, PlanRequest
from eigenlens.index.plans.plan import choose_lengths
from eigenlens.index.threads import all_cores
from eigenlens.service.gallery.layout import Gallery

TARGETS = (0.9, 0.95, 0.99)
COUNTS = (1, 10, 24, 50, 100, 200, 500, 1000)
SELECTIVITIES = (0.5, 0.1, 0.01, 0.001)
CORRELATIONS = ("none", "with", "against")
_FILTERED_K = 10
# The share of images that is removed of a gallery that changed since its build.
_REMOVED = 0.5
_AT_ONCE = 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--gallery", metavar="DIR", type=Path, required=True, help="gallery whose images have a label, as the sample's"
    )
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where the codes are indexed")
    parser.add_argument(
        "--queries", type=positive, default=2000, help="pairs of query and filter (default: %(default)s)"
    )
    parser.add_argument(
        "--added", type=positive, default=100_000, help="images that are added after the build (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")


@dataclass(frozen=True)
class _Measured:
    """What searches of one kind gave: means over the queries, and the median latency."""

    params: Mapping[str, Any]
    recall_seen: float
    short_answers: int
    latency_ms: float


def run(args: argparse.Namespace) -> None:
    """Measure all k without a filter, all filters, then changes; print a line for each. Raises: EigenlensError."""
    with all_cores(False):
        gallery = Gallery(args.gallery)
        _, generation = gallery.open_current()
        labels = [str(metadata["label"]) for metadata in gallery.store.metadata_of(generation.keys.tolist())]
        rng = np.random.default_rng(args.seed)
        draws = rng.random(len(labels))
        engine = _index(args.work / "generation", generation.codes, labels, draws)
        queries = rng.choice(len(labels), min(args.queries, len(labels)), replace=False)
        promises = _Promises(engine, labels, queries, rng)
        print(
            f"{'k':>5} {'selectivity':>11} {'filter':>8} {'added':>7} {'removed':>7} {'target':>7} "
            f"{'recall':>8} {'short':>6} {'ms':>8}"
        )
        for measured in itertools.chain(promises.measure(), promises.measure_changed(args.added)):
            _show(measured)
            if args.results:
                params = {**measured.params, "count": len(labels), "queries": len(queries)}
                subject = Subject("promises", "fashion-mnist", "eigenlens", engine.code_length, args.seed, params)
                metrics = (
                    ("recall_seen", measured.recall_seen, ""),
                    ("short_answers", measured.short_answers, ""),
                    ("latency_ms", measured.latency_ms, "ms"),
                )
                append_records(args.results, [make_record(subject, *metric) for metric in metrics])


def _index(path: Path, codes: Codes, labels: Sequence[str], draws: NDArray[np.float64]) -> LiveEngine:
    """Open the codes as indexed by this code; index them first where they are not."""
    if not path.exists():
        print(f"indexing {len(codes)} codes ...", file=sys.stderr)
        metadata = [{"label": label, "draw": float(draw)} for label, draw in zip(labels, draws, strict=True)]
        build_generation(path, codes, BuildOptions(lengths=choose_lengths(codes.code_length), metadata=metadata))
    return LiveEngine(Generation(path, codes))


class _Promises:
    """Searches by targets, beside exact results."""

    def __init__(
        self, engine: LiveEngine, labels: Sequence[str], queries: NDArray[np.int64], rng: np.random.Generator
    ) -> None:
        self._engine, self._chooser, self._rng = engine, PlanChooser(engine), rng
        self._labels, self._queries = np.asarray(labels), queries
        self._codes = np.asarray(engine.generation.codes.codes[queries], dtype=np.float32)

    def measure(self) -> Iterator[_Measured]:
        """Measure every k without a filter, then ten results under every kind of filter."""
        exact = self._exact([None] * len(self._queries), max(COUNTS))
        for k in COUNTS:
            for target in TARGETS:
                params = {"target": target, "k": k, "selectivity": 1.0, "correlation": "none"}
                yield self._search(params, [None] * len(self._queries), exact)
        for selectivity in SELECTIVITIES:
            for correlation in CORRELATIONS:
                filters = [self._filter(query, selectivity, correlation) for query in self._queries]
                exact = self._exact(filters, _FILTERED_K)
                for target in TARGETS:
                    params = {
                        "target": target,
                        "k": _FILTERED_K,
                        "selectivity": selectivity,
                        "correlation": correlation,
                    }
                    yield self._search(params, filters, exact)

    def measure_changed(self, count: int) -> Iterator[_Measured]:
        """Measure ten results after so many images were added, after half of all were removed, and after both."""
        generation, filters = self._engine.generation, [None] * len(self._queries)
        pairs = self._pairs(count)
        codes = unit_prefix(generation.codes.codes, generation.code_length)
        added = 0.5 * (codes[pairs[0]] + codes[pairs[1]])
        added_keys = int(generation.keys.max()) + 1 + np.arange(len(added))
        removed = self._rng.random(len(generation)) < _REMOVED
        for adds, removes in ((True, False), (False, True), (True, True)):
            self._engine = LiveEngine(generation)
            self._chooser = PlanChooser(self._engine)
            if adds:
                self._engine.add(added_keys.tolist(), added, [{}] * len(added))
            if removes:
                self._engine.remove(generation.keys[removed].tolist())
            exact = self._exact(
                filters,
                _FILTERED_K,
                removed=removed if removes else None,
                added=(added_keys, unit_prefix(added, codes.shape[1])) if adds else None,
            )
            for target in TARGETS:
                params = {"target": target, "k": _FILTERED_K, "selectivity": 1.0, "correlation": "none"}
                changes = {"added": len(added) if adds else 0, "removed": _REMOVED if removes else 0.0}
                yield self._search({**params, **changes}, filters, exact)

    def _pairs(self, count: int) -> NDArray[np.int64]:
        """Return rows of pairs of images of one label, (2, count)."""
        first = self._rng.integers(0, len(self._labels), count)
        second = np.empty_like(first)
        for label in np.unique(self._labels):
            of_label = np.flatnonzero(self._labels[first] == label)
            second[of_label] = self._rng.choice(np.flatnonzero(self._labels == label), len(of_label))
        return np.stack([first, second])

    def _filter(self, query: int, selectivity: float, correlation: str) -> Filter:
        """Return a filter that leaves about this share of the images, by label and by the random number."""
        own = str(self._labels[query])
        share = float(np.mean(self._labels == own))
        if correlation == "none":
            start = float(self._rng.uniform(0, 1 - selectivity))
            return parse_filter({"draw": {"$gte": start, "$lt": start + selectivity}})
        if correlation == "with" and selectivity > share:  # its own label, and some of the others
            return parse_filter({"$or": [{"label": own}, {"draw": {"$lt": (selectivity - share) / (1 - share)}}]})
        if correlation == "with":
            return parse_filter({"label": own, "draw": {"$lt": selectivity / share}})
        if selectivity > share:  # other labels
            return parse_filter({"label": {"$ne": own}, "draw": {"$lt": selectivity / (1 - share)}})
        other = str(self._rng.choice([label for label in np.unique(self._labels) if label != own]))
        return parse_filter({"label": other, "draw": {"$lt": selectivity / float(np.mean(self._labels == other))}})

    def _exact(
        self,
        filters: Sequence[Filter | None],
        k: int,
        *,
        removed: NDArray[np.bool_] | None = None,
        added: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None,
    ) -> list[NDArray[np.int64]]:
        """Return the keys of the exact k nearest of each query under its filter, best first, without itself.

        Args:
            removed: whether each row was removed, (n,).
            added: keys (m,) and unit codes (m, code_length) that were added.
        """
        attributes, keys = self._engine.generation.attributes, self._engine.keys
        if added is not None:
            keys = np.concatenate([keys, added[0]])
        codes = unit_prefix(self._engine.generation.codes.codes, self._engine.code_length)
        nearest = []
        for start in range(0, len(self._queries), _AT_ONCE):
            part = self._queries[start : start + _AT_ONCE]
            units = unit_prefix(self._codes[start : start + _AT_ONCE], codes.shape[1])
            cosines = units @ codes.T
            if removed is not None:
                cosines[:, removed] = -np.inf
            if added is not None:
                cosines = np.concatenate([cosines, units @ added[1].T], axis=1)
            for query, scores, filter in zip(part, cosines, filters[start : start + _AT_ONCE], strict=True):
                if filter is not None:
                    scores[~attributes.mask(filter)] = -np.inf
                scores[query] = -np.inf
                limit = min(k, int(np.isfinite(scores).sum()))
                best = np.argpartition(-scores, max(0, limit - 1))[:limit]
                nearest.append(keys[best[np.argsort(-scores[best], kind="stable")]])
        return nearest

    def _search(
        self, params: Mapping[str, Any], filters: Sequence[Filter | None], exact: Sequence[NDArray[np.int64]]
    ) -> _Measured:
        """Search for all queries by a target. A filter's selection is made before its search is timed."""
        is_whole = self._engine.removed == 0
        k, request = int(params["k"]), PlanRequest(target_recall=params["target"])
        recalls, times, short = [], [], 0
        for query, code, filter, best in zip(self._queries, self._codes, filters, exact, strict=True):
            for _ in range(1 if filter is None else 2):
                begun = time.perf_counter()
                if filter is None and is_whole:
                    plan = self._chooser.choose(request, k=k).plan
                else:
                    reach = self._engine.reach(code[None], k=k, filter=filter)[0]
                    plan = self._chooser.choose_filtered(request, k=k, reach=reach).plan
                neighbors = self._engine.search(code[None], plan=plan.excluding(1), k=k + 1, filter=filter)[0]
                taken = time.perf_counter() - begun
            times.append(1000 * taken)
            keys = [key for key, _ in neighbors if key != self._engine.keys[query]][:k]
            true_keys = best[:k]
            short += len(keys) < len(true_keys)
            if len(true_keys):
                recalls.append(len(set(keys) & set(true_keys.tolist())) / len(true_keys))
        recall = float(np.mean(recalls)) if recalls else 1.0  # nothing matched anywhere, and nothing was returned
        return _Measured(params, round(recall, 5), short, round(float(np.median(times)), 4))


def _show(measured: _Measured) -> None:
    params = measured.params
    print(
        f"{params['k']:>5} {params['selectivity']:>11.1%} {params['correlation']:>8} {params.get('added', 0):>7} "
        f"{params.get('removed', 0.0):>7.0%} {params['target']:>7} {measured.recall_seen:>8.4f} "
        f"{measured.short_answers:>6} {measured.latency_ms:>8.3f}",
        flush=True,
    )

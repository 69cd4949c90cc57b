"""Calibration: measured recall, latency and bytes of a generation's plans, and the choice of a plan by them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import TargetError
from eigenlens.index.plans.plan import TIMED_RESULTS, IndexSpec, Plan, final_shortlist_for

# Target recall of a search that gives no targets.
DEFAULT_TARGET = 0.99
# Recall@k is measured at these k: the deeper ones by fewer queries, each of which says more.
SHALLOW_COUNTS = (1, 10, 24, 50, 100)
DEEP_COUNTS = (200, 500, 1000)
COUNTS = SHALLOW_COUNTS + DEEP_COUNTS
# Where nothing else is asked for, a plan is the same for all k up to one of these: pages of its results fit together.
DEFAULT_COUNTS = (24, 100, 1000)
# Whose neighbours are searched while recall is measured: images of the gallery, or what people searched for lately.
Source = Literal["gallery", "searches"]
# A search in less memory may take so many times as long as the quickest.
_LITTLE_LONGER = 1.25
# One-sided 95 %.
_Z = 1.645
# So many queries tell how much is missed where something is.
_MANY_QUERIES = 100


@dataclass(frozen=True)
class Recall:
    """Mean recall@k over the queries, and its lower confidence bound (one-sided, 95 %)."""

    mean: float
    low: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Recall:
        """Summarise each query's recall (q,).

        For the bound a pseudo-query is added, so that no sample proves 1. It misses as much as those queries do that
        miss something, on average of them and of one that misses half; in a small sample it misses half.
        """
        if len(values) == 0:
            return cls(0.0, 0.0)
        missed, pseudo = 1 - values, 0.5
        if len(values) >= _MANY_QUERIES:
            pseudo = (missed.sum() + 0.5) / (np.count_nonzero(missed) + 1)
        smoothed = np.append(values, 1 - pseudo)
        low = smoothed.mean() - _Z * smoothed.std(ddof=1) / np.sqrt(len(smoothed))
        return cls(round(float(values.mean()), 5), round(max(0.0, float(low)), 5))


@dataclass(frozen=True)
class Measured:
    """A plan and its measured recall and latency, one query at a time on one thread.

    Attributes:
        recall: by k, against exact search by full codes; some k may not have been measured.
        latency_ms: "p50", "p95" and "p99" of a search, without decoding and encoding; empty where it was not measured.
        bytes_per_image: what its index takes and, with a rerank, the codes.
        exact: whether it finds the true neighbours by construction.
    """

    plan: Plan
    recall: Mapping[int, Recall]
    latency_ms: Mapping[str, float]
    bytes_per_image: float = 0.0
    exact: bool = False

    def recall_for(self, k: int) -> Recall | None:
        """Return recall@k, or that of the next k above that was measured; None beyond the largest."""
        if self.exact:
            return Recall(1.0, 1.0)
        count = min((count for count in self.recall if count >= k), default=None)
        return None if count is None else self.recall[count]

    def low(self, k: int) -> float:
        """Return the lower bound of recall@k; 0 where that is not known."""
        recall = self.recall_for(k)
        return 0.0 if recall is None else recall.low

    def for_k(self, k: int) -> Plan:
        """Return the plan for k results, the same for all k up to the next that is measured: a shortlist holds it."""
        plan, least = self.plan, measured_count(k)
        if plan.final_shortlist:
            spare = plan.final_shortlist - final_shortlist_for(TIMED_RESULTS, spare=0)
            plan = replace(plan, final_shortlist=final_shortlist_for(least, spare=spare))
        return plan if plan.shortlist is None or plan.shortlist >= least else replace(plan, shortlist=least)


@dataclass(frozen=True)
class Calibration:
    """The measurements made at the end of a build.

    Attributes:
        measured: plans on the front of recall against latency for some k, and the plain one of every length.
        efforts: default efforts of each index, as "length kind", by the largest k that each is for.
        queries: how many queries recall was measured on.
        seconds: that measuring took.
        device: that searched while it was measured, "cpu" or "gpu", where the GPU can.
        source: where the queries come from.
        drawn: the plans as they were measured under filters that leave a share of the images, drawn at random, by that
            share; empty where filters were not measured.
    """

    measured: tuple[Measured, ...]
    efforts: Mapping[str, Mapping[int, int]]
    queries: int
    seconds: float = 0.0
    device: str = "cpu"
    source: Source = "gallery"
    drawn: Mapping[float, Sequence[Measured]] = field(default_factory=dict)

    @classmethod
    def of_nothing(cls, specs: Sequence[IndexSpec], *, device: str = "cpu") -> Self:
        """Return the calibration of empty indexes: their plain plans take no time, and that by full codes is exact."""
        full = max(spec.length for spec in specs)
        no_time = {"p50": 0.0, "p95": 0.0, "p99": 0.0}
        measured = [
            Measured(Plan(spec.length, spec.kind), recall={}, latency_ms=no_time, exact=spec.length == full)
            for spec in specs
        ]
        return cls(tuple(measured), efforts={}, queries=0, device=device)

    def without_kind(self, kind: str) -> Calibration:
        """Return the calibration without the plans of one kind of index."""
        return replace(self, measured=tuple(m for m in self.measured if m.plan.kind != kind))

    def under_filter(self, share: float) -> Calibration:
        """Return the calibration of searches under a filter that leaves a share of the images, 0 to 1.

        Its plans have the lower recall and the longer time of the two measured shares that this one lies between, of
        which one is that without a filter, 1. Below all of them, those of the least stand. It is this calibration where
        filters were not measured.
        """
        if not self.drawn or share >= 1:
            return self
        measured = {**self.drawn, 1.0: self.measured}
        below = max((s for s in measured if s <= share), default=min(measured))
        above = min(s for s in measured if s >= share)
        others = {m.plan: m for m in measured[above]}
        worse = [_worse(m, others[m.plan]) for m in measured[below] if m.plan in others]
        return replace(self, measured=tuple(worse), drawn={})

    def default_effort(self, spec: IndexSpec, k: int) -> int:
        """Return the effort of an index for k results where none is asked for; in proportion beyond the largest k."""
        efforts = self.efforts[effort_name(spec)]
        count = default_count(k)
        if count in efforts:
            return efforts[count]
        largest = max(efforts)
        return -(-efforts[largest] * count // largest)

    def expected(self, plan: Plan, k: int) -> Measured | None:
        """Return what was measured of this very plan; None, if it was not, or only on a gallery too small for it."""
        measured = next((measured for measured in self.measured if measured.for_k(k) == plan), None)
        return measured if measured is not None and (self.queries or measured.exact) else None

    def plain(self, length: int) -> Measured | None:
        """Return the plan that searches a length without a rerank at more coordinates."""
        return next((m for m in self.measured if m.plan.prefix_length == length and is_plain(m.plan)), None)

    def exact(self) -> Measured:
        """Return the plan that scores every image by its full code. Raises: TargetError, if there is none."""
        measured = min((m for m in self.measured if m.exact), key=lambda m: m.latency_ms["p50"], default=None)
        if measured is None:
            raise TargetError("no plan was measured that is exact")
        return measured

    def choose(
        self,
        *,
        k: int,
        target_recall: float | None = None,
        max_latency_ms: float | None = None,
        length: int | None = None,
        added_ms: float = 0.0,
        without_kind: str | None = None,
    ) -> Measured:
        """Return the fastest plan that reaches a recall, or, without a target recall, the best within a latency.

        A plan reaches a recall if its lower confidence bound does. Where the generation has compact codes, plans with
        these go first, and among them those over one prefix, so that searches of all targets share its index in memory.

        Args:
            target_recall: share of the exact k nearest by full codes, 0 to 1; 0.99 if there are no targets at all.
            max_latency_ms: limit on the plan's 95th percentile.
            length: consider only plans that search this prefix length.
            added_ms: what every search takes beside its plan, for images that were added since the build.
            without_kind: do not consider plans of this kind of index.

        Raises: TargetError, if no plan meets the targets; its message says which targets can be met.
        """
        plans = [
            m
            for m in self.measured
            if (length is None or m.plan.prefix_length == length) and m.plan.kind != without_kind
        ]
        fitting = [m for m in plans if max_latency_ms is None or m.latency_ms["p95"] + added_ms <= max_latency_ms]
        added = f", of which {added_ms:g} ms are for images that were added since the build" if added_ms else ""
        if target_recall is None and max_latency_ms is None:
            target_recall = DEFAULT_TARGET
        if target_recall is None:
            if not fitting:
                fastest = min(plans, key=lambda m: m.latency_ms["p95"])
                raise TargetError(
                    f"no plan keeps to {max_latency_ms:g} ms; the fastest takes "
                    f"{fastest.latency_ms['p95'] + added_ms:g} ms{added}"
                )
            return max(fitting, key=lambda m: (m.low(k), -m.latency_ms["p50"]))
        meeting = [m for m in plans if m.low(k) >= target_recall]
        both = [m for m in fitting if m.low(k) >= target_recall]
        if both:
            compact = [m for m in both if m.plan.final_shortlist]
            prefix = shared_prefix(plans, k)
            shared = [m for m in compact if m.plan.prefix_length == prefix]
            return min(shared or compact or both, key=lambda m: (m.latency_ms["p50"], m.plan))
        best = max(plans, key=lambda m: m.low(k))
        if not meeting:
            where = "" if length is None else f" of length {length}"
            raise TargetError(
                f"no plan{where} is sure to reach a recall of {target_recall:g}; the best reaches {best.low(k):g}"
            )
        cheapest = min(meeting, key=lambda m: m.latency_ms["p95"])
        reached = max((m.low(k) for m in fitting), default=0.0)
        raise TargetError(
            f"a recall of {target_recall:g} takes {cheapest.latency_ms['p95'] + added_ms:g} ms{added}, "
            f"and {max_latency_ms:g} ms give {f'a recall of {reached:g}' if fitting else 'no result'}: "
            "they cannot both be met"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as a manifest stores it."""
        return {
            "queries": self.queries,
            "seconds": self.seconds,
            "device": self.device,
            "source": self.source,
            "efforts": {name: {str(k): effort for k, effort in by_k.items()} for name, by_k in self.efforts.items()},
            "measured": [_to_json(m) for m in self.measured],
            "drawn": {f"{share:g}": [_to_json(m) for m in plans] for share, plans in self.drawn.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a calibration from a manifest."""
        measured = tuple(_from_json(entry) for entry in data["measured"])
        # Generations of before were measured without filters only.
        drawn = {float(share): tuple(map(_from_json, plans)) for share, plans in data.get("drawn", {}).items()}
        efforts = {
            # Generations of before had one effort for every k.
            name: {DEFAULT_COUNTS[0]: by_k} if isinstance(by_k, int) else {int(k): e for k, e in by_k.items()}
            for name, by_k in data["efforts"].items()
        }
        device, source = data.get("device", "cpu"), data.get("source", "gallery")
        return cls(measured, efforts, data["queries"], data["seconds"], device, source, drawn)


def _to_json(measured: Measured) -> dict[str, Any]:
    return {**asdict(measured), "recall": {str(k): asdict(recall) for k, recall in measured.recall.items()}}


def _from_json(entry: Mapping[str, Any]) -> Measured:
    return Measured(
        plan=Plan(**entry["plan"]),
        recall={int(k): Recall(**recall) for k, recall in entry["recall"].items()},
        latency_ms=entry["latency_ms"],
        bytes_per_image=entry["bytes_per_image"],
        exact=entry["exact"],
    )


def _worse(one: Measured, other: Measured) -> Measured:
    """Return the measurements of a plan that are the worse of two, at those k that both have."""
    recall = {k: min(one.recall[k], other.recall[k], key=lambda r: r.low) for k in one.recall if k in other.recall}
    latency_ms = {q: max(ms, other.latency_ms[q]) for q, ms in one.latency_ms.items()}
    return replace(one, recall=recall, latency_ms=latency_ms)


def shared_prefix(measured: Iterable[Measured], k: int) -> int | None:
    """Return the prefix over which plans with compact codes find k results in the least memory.

    It is that of the smallest of the plans which reach the default target, or the best recall of any where none reaches
    it, and take little longer than the quickest of them; None without such plans.
    """
    compact = [m for m in measured if m.plan.final_shortlist]
    if not compact:
        return None
    target = min(DEFAULT_TARGET, max(m.low(k) for m in compact))
    reaching = [m for m in compact if m.low(k) >= target]
    longest_ms = _LITTLE_LONGER * min(m.latency_ms["p50"] for m in reaching)
    quick = [m for m in reaching if m.latency_ms["p50"] <= longest_ms]
    return min(quick, key=lambda m: (m.bytes_per_image, m.latency_ms["p50"], m.plan)).plan.prefix_length


def is_plain(plan: Plan) -> bool:
    """Whether a plan uses no coordinates beyond its prefix."""
    return plan.rerank_length is None or plan.rerank_length == plan.prefix_length


def effort_name(spec: IndexSpec) -> str:
    """Return the name of an index in a calibration, such as "64 ivf-sq8"."""
    return f"{spec.length} {spec.kind}"


def measured_count(k: int) -> int:
    """Return the least number of results, k or more, that recall is measured at; k beyond the largest."""
    return next((count for count in COUNTS if count >= k), k)


def default_count(k: int) -> int:
    """Return the largest number of results for which default plans are as they are for k."""
    if k <= DEFAULT_COUNTS[-1]:
        return DEFAULT_COUNTS[bisect_left(DEFAULT_COUNTS, k)]
    count = DEFAULT_COUNTS[-1]
    while count < k:
        count *= 10
    return count

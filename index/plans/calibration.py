"""Calibration: measured recall, latency and bytes of the plans of a generation, and the choice among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import TargetError
from eigenlens.index.plans.plan import IndexSpec, Plan

DEFAULT_TARGET = 0.99
# Recall@k is measured at these k.
COUNTS = (1, 10, 100)
# One-sided 95 %.
_Z = 1.645


@dataclass(frozen=True)
class Recall:
    """Mean recall@k over the queries, and the lower end of its one-sided 95 % confidence interval."""

    mean: float
    low: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Recall:
        """From each query's recall. One more query that found half is counted in, so that no sample proves 1."""
        if len(values) == 0:
            return cls(0.0, 0.0)
        smoothed = np.append(values, 0.5)
        low = smoothed.mean() - _Z * smoothed.std(ddof=1) / np.sqrt(len(smoothed))
        return cls(round(float(values.mean()), 5), round(max(0.0, float(low)), 5))


@dataclass(frozen=True)
class Measured:
    """A plan and what it was measured to give, one query at a time on one thread.

    Attributes:
        recall: by k, against exact search by full codes.
        latency_ms: "p50", "p95" and "p99" of a search, without decoding and encoding.
        bytes_per_image: what its index takes and, with a rerank, the codes.
        exact: whether it finds the true neighbours by construction.
    """

    plan: Plan
    recall: Mapping[int, Recall]
    latency_ms: Mapping[str, float]
    bytes_per_image: float = 0.0
    exact: bool = False

    def recall_for(self, k: int) -> Recall:
        """Recall@k, or that of the next k above that was measured, or of the largest."""
        return self.recall[next((count for count in COUNTS if count >= k), COUNTS[-1])]

    def for_k(self, k: int) -> Plan:
        """The plan for k results; beyond the largest k that was measured its shortlist grows in proportion."""
        plan = self.plan
        if plan.shortlist is None:
            return plan
        return replace(
            plan, shortlist=max(k, -(-plan.shortlist * k // COUNTS[-1]) if k > COUNTS[-1] else plan.shortlist)
        )


@dataclass(frozen=True)
class Calibration:
    """What was measured at the end of a build.

    Attributes:
        measured: plans on the front of recall against latency for some k, and the plain one of every length.
        efforts: default effort of each index, as "length kind".
        queries: how many queries recall was measured on.
        seconds: that measuring took.
        device: that searched while it was measured, "cpu" or "gpu", where the GPU can.
    """

    measured: tuple[Measured, ...]
    efforts: Mapping[str, int]
    queries: int
    seconds: float = 0.0
    device: str = "cpu"

    def default_effort(self, spec: IndexSpec) -> int:
        """The effort of an index where none is asked for."""
        return self.efforts[effort_name(spec)]

    def expected(self, plan: Plan, k: int) -> Measured | None:
        """What was measured of this very plan; None, if it was not, or only on a gallery too small for it."""
        found = next((measured for measured in self.measured if measured.for_k(k) == plan), None)
        return found if found is not None and (self.queries or found.exact) else None

    def plain(self, length: int) -> Measured | None:
        """The plan that searches a length without a rerank at more coordinates."""
        return next((m for m in self.measured if m.plan.prefix_length == length and is_plain(m.plan)), None)

    def choose(
        self,
        *,
        k: int,
        target_recall: float | None = None,
        max_latency_ms: float | None = None,
        length: int | None = None,
    ) -> Measured:
        """The cheapest plan that meets a recall on its lower confidence bound, or the best that keeps to a latency.

        Args:
            target_recall: of the exact k best by full codes, 0 to 1; 0.99 when neither is given.
            max_latency_ms: which the plan's 95th percentile keeps to.
            length: only plans that search this prefix.

        Raises: TargetError, if no plan meets what was asked for; it says what can be had.
        """
        plans = [m for m in self.measured if length is None or m.plan.prefix_length == length]
        fitting = [m for m in plans if max_latency_ms is None or m.latency_ms["p95"] <= max_latency_ms]
        if target_recall is None and max_latency_ms is None:
            target_recall = DEFAULT_TARGET
        if target_recall is None:
            if not fitting:
                fastest = min(plans, key=lambda m: m.latency_ms["p95"])
                raise TargetError(
                    f"no plan keeps to {max_latency_ms:g} ms; the fastest takes {fastest.latency_ms['p95']:g} ms"
                )
            return max(fitting, key=lambda m: (m.recall_for(k).low, -m.latency_ms["p50"]))
        meeting = [m for m in plans if m.recall_for(k).low >= target_recall]
        both = [m for m in fitting if m.recall_for(k).low >= target_recall]
        if both:
            return min(both, key=lambda m: (m.latency_ms["p50"], m.plan))
        best = max(plans, key=lambda m: m.recall_for(k).low)
        if not meeting:
            where = "" if length is None else f" of length {length}"
            raise TargetError(
                f"no plan{where} is sure to reach a recall of {target_recall:g}; "
                f"the best reaches {best.recall_for(k).low:g}"
            )
        cheapest = min(meeting, key=lambda m: m.latency_ms["p95"])
        reached = max((m.recall_for(k).low for m in fitting), default=0.0)
        raise TargetError(
            f"a recall of {target_recall:g} takes {cheapest.latency_ms['p95']:g} ms, and {max_latency_ms:g} ms "
            f"give {f'a recall of {reached:g}' if fitting else 'no result'}: they cannot both be met"
        )

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "queries": self.queries,
            "seconds": self.seconds,
            "device": self.device,
            "efforts": dict(self.efforts),
            "measured": [
                {**asdict(m), "recall": {str(k): asdict(recall) for k, recall in m.recall.items()}}
                for m in self.measured
            ],
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """From a manifest."""
        measured = tuple(
            Measured(
                plan=Plan(**entry["plan"]),
                recall={int(k): Recall(**recall) for k, recall in entry["recall"].items()},
                latency_ms=entry["latency_ms"],
                bytes_per_image=entry["bytes_per_image"],
                exact=entry["exact"],
            )
            for entry in given["measured"]
        )
        return cls(measured, given["efforts"], given["queries"], given["seconds"], given.get("device", "cpu"))


def is_plain(plan: Plan) -> bool:
    """Whether a plan uses no coordinates beyond its prefix."""
    return plan.rerank_length is None or plan.rerank_length == plan.prefix_length


def effort_name(spec: IndexSpec) -> str:
    """How a calibration names an index."""
    return f"{spec.length} {spec.kind}"

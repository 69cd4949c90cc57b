"""Calibration: measured recall, latency and bytes of a generation's plans, and the choice of a plan by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from eigenlens.index.errors import TargetError
from eigenlens.index.plans.plan import IndexSpec, Plan

# Target recall of a search that gives no targets.
DEFAULT_TARGET = 0.99
# Recall@k is measured at these k.
COUNTS = (1, 10, 100)
# Quantile of the normal distribution for a one-sided confidence of 95 %.
_Z = 1.645


@dataclass(frozen=True)
class Recall:
    """Mean recall@k over the queries, and its lower confidence bound (one-sided, 95 %)."""

    mean: float
    low: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Recall:
        """Summarise each query's recall (q,). A pseudo-query of recall 0.5 is added, so that no sample proves 1."""
        if len(values) == 0:
            return cls(0.0, 0.0)
        smoothed = np.append(values, 0.5)
        low = smoothed.mean() - _Z * smoothed.std(ddof=1) / np.sqrt(len(smoothed))
        return cls(round(float(values.mean()), 5), round(max(0.0, float(low)), 5))


@dataclass(frozen=True)
class Measured:
    """A plan and its measured recall and latency, one query at a time on one thread.

    Attributes:
        recall: recall@k by k, against exact search by full codes.
        latency_ms: "p50", "p95" and "p99" of the search, without decoding and encoding.
        bytes_per_image: size of the index and, for a plan with a rerank, of the codes.
        exact: whether the plan finds the true nearest neighbours by construction.
    """

    plan: Plan
    recall: Mapping[int, Recall]
    latency_ms: Mapping[str, float]
    bytes_per_image: float = 0.0
    exact: bool = False

    def recall_for(self, k: int) -> Recall:
        """Return recall@k at the smallest measured k that is not below this k, or at the largest measured one."""
        return self.recall[next((count for count in COUNTS if count >= k), COUNTS[-1])]

    def for_k(self, k: int) -> Plan:
        """Return the plan for k results; beyond the largest measured k, the shortlist grows in proportion to k."""
        plan = self.plan
        if plan.shortlist is None:
            return plan
        return replace(
            plan, shortlist=max(k, -(-plan.shortlist * k // COUNTS[-1]) if k > COUNTS[-1] else plan.shortlist)
        )


@dataclass(frozen=True)
class Calibration:
    """The measurements made at the end of a build.

    Attributes:
        measured: the Pareto front of recall and latency over all plans, for each measured k, and every length's plain
            plan.
        efforts: default effort of each index; `effort_name` gives the names.
        queries: number of queries that recall was measured on.
        seconds: time that the measurements took.
        device: where the searches ran: "cpu" or "gpu". With "gpu", indexes that a GPU cannot hold ran on the CPU.
    """

    measured: tuple[Measured, ...]
    efforts: Mapping[str, int]
    queries: int
    seconds: float = 0.0
    device: str = "cpu"

    def default_effort(self, spec: IndexSpec) -> int:
        """Return the effort of an index for searches that do not set one."""
        return self.efforts[effort_name(spec)]

    def expected(self, plan: Plan, k: int) -> Measured | None:
        """Return the measurement of exactly this plan; None if there is none, or the gallery was too small for one."""
        match = next((measured for measured in self.measured if measured.for_k(k) == plan), None)
        return match if match is not None and (self.queries or match.exact) else None

    def plain(self, length: int) -> Measured | None:
        """Return the plain plan of a length, which uses no coordinates beyond the prefix."""
        return next((m for m in self.measured if m.plan.prefix_length == length and is_plain(m.plan)), None)

    def choose(
        self,
        *,
        k: int,
        target_recall: float | None = None,
        max_latency_ms: float | None = None,
        length: int | None = None,
    ) -> Measured:
        """Return the fastest plan that reaches a recall, or, without a target recall, the best within a latency.

        A plan reaches a recall if its lower confidence bound does.

        Args:
            target_recall: share of the exact k nearest by full codes, 0 to 1; 0.99 if there are no targets at all.
            max_latency_ms: limit on the plan's 95th percentile.
            length: consider only plans that search this prefix length.

        Raises: TargetError, if no plan meets the targets; its message says which targets can be met.
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
        """Return the calibration as a manifest stores it."""
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
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read a calibration from a manifest."""
        measured = tuple(
            Measured(
                plan=Plan(**entry["plan"]),
                recall={int(k): Recall(**recall) for k, recall in entry["recall"].items()},
                latency_ms=entry["latency_ms"],
                bytes_per_image=entry["bytes_per_image"],
                exact=entry["exact"],
            )
            for entry in data["measured"]
        )
        return cls(measured, data["efforts"], data["queries"], data["seconds"], data.get("device", "cpu"))


def is_plain(plan: Plan) -> bool:
    """Whether a plan uses no coordinates beyond its prefix."""
    return plan.rerank_length is None or plan.rerank_length == plan.prefix_length


def effort_name(spec: IndexSpec) -> str:
    """Return the name of an index in a calibration, such as "64 ivf-sq8"."""
    return f"{spec.length} {spec.kind}"

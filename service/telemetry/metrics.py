"""Prometheus metrics: what is counted while requests run, and figures that are read when somebody asks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_STAGES = frozenset({"queue", "decode", "encode", "search"})
# Read when somebody asks: name, what it is.
FIGURES = {
    "eigenlens_generation": "Generation that is served",
    "eigenlens_gallery_images": "Images that can be found",
    "eigenlens_delta_images": "Images that were added since the generation was built",
    "eigenlens_removed_images": "Images of the generation that were removed or replaced since it was built",
    "eigenlens_jobs_running": "Jobs that are queued or running",
    "eigenlens_job_progress_ratio": "How far the running job is in its stage, 0 to 1; 0 without one",
}

# Likewise, of the searches that had the same plan, number of results, target (empty without one) and filter or none.
RECALL_FIGURES = {
    "eigenlens_live_recall": "Recall that the last searches reached, by exact repetitions of a random share of them",
    "eigenlens_live_recall_low": "Lower end of the 95 % confidence interval of eigenlens_live_recall",
    "eigenlens_live_recall_high": "Upper end of the 95 % confidence interval of eigenlens_live_recall",
    "eigenlens_live_recall_searches": "Searches that eigenlens_live_recall is the mean of",
    "eigenlens_promised_recall": "The target of these searches, or the recall that is expected of their plan",
}
RECALL_LABELS = ("plan", "k", "target", "filtered")
RecallFigures = tuple[dict[str, str], dict[str, float | None]]


class Metrics:
    """The metrics of one application; with several workers, each answers for all of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "http_server_request_duration_seconds",
            "Time from a request's first byte to its answer's last, by route template",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "eigenlens_stage_duration_seconds",
            "Time in each stage of searches: queue, decode, encode, search",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.searches = Histogram(
            "eigenlens_search_duration_seconds",
            "Time of searches from their acceptance to their answer, by the prefix length of their plan",
            ("length",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "eigenlens_batch_size",
            "Searches that were finished together",
            buckets=_SIZES,
            registry=self.registry,
        )
        self.depth = Gauge(
            "eigenlens_queue_depth",
            "Searches in progress: accepted, and not answered yet",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.refused = Counter(
            "eigenlens_requests_refused_total",
            "Requests that were answered 401, 403 or 429",
            ("status",),
            registry=self.registry,
        )

        # To look up a metric by its labels takes twice as long as to count.
        self._by_stage = {stage: self.stages.labels(stage) for stage in _STAGES}
        self._by_length = cache(lambda length: self.searches.labels(str(length)))
        self._by_answer = cache(self.requests.labels)

    def observe(self, name: str, value: float) -> None:
        """Record a value that a batcher or a pipeline measured."""
        if name in _STAGES:
            self._by_stage[name].observe(value)
        elif name == "batch":
            self.batches.observe(value)

    def observe_search(self, length: int, seconds: float) -> None:
        """Count a search by the prefix length of its plan."""
        self._by_length(length).observe(seconds)

    def request(self, scope: Any, *, status: int, seconds: float) -> None:
        """Count an answered request."""
        route = getattr(scope.get("route"), "path", None) or (
            "/v1/search" if scope["path"] == "/v1/search" else "other"
        )
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._by_answer(method, route, status).observe(seconds)
        if status in (401, 403, 429):
            self.refused.labels(str(status)).inc()

    def text(self, figures: dict[str, float], recall: Sequence[RecallFigures] = ()) -> bytes:
        """Return all metrics in Prometheus's text format; `figures` are the values of FIGURES."""
        has_workers = MULTIPROCESS_DIR in os.environ
        registry = CollectorRegistry() if has_workers else self.registry
        if has_workers:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        gauges = CollectorRegistry()
        gauges.register(_Figures(figures, recall))
        return generate_latest(registry) + generate_latest(gauges)


class _Figures:
    """Collects figures as gauges."""

    def __init__(self, figures: dict[str, float], recall: Sequence[RecallFigures]) -> None:
        self._figures, self._recall = figures, recall

    def collect(self) -> Iterator[Metric]:
        for name, description in FIGURES.items():
            yield GaugeMetricFamily(name, description, value=self._figures[name])
        for name, description in RECALL_FIGURES.items():
            family = GaugeMetricFamily(name, description, labels=RECALL_LABELS)
            for labels, values in self._recall:
                if (value := values[name]) is not None:
                    family.add_metric([labels[label] for label in RECALL_LABELS], value)
            yield family

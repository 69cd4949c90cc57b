"""What the service answers, as the client's callers see it: the members of the OpenAPI document's schemas."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class SearchOptions(TypedDict, total=False):
    """How to search; what is left out is the service's choice. See docs/guide/api.md."""

    k: int
    offset: int
    length: int | Literal["auto"]
    target_recall: float
    max_latency_ms: float
    rerank: int | Literal["none", "full"]
    shortlist: int
    effort: int | Literal["max"]
    filter: dict[str, Any]
    min_score: float
    group_duplicates: float
    include: list[Literal["metadata", "code", "timing"]]


class Duplicate(TypedDict):
    """An image that is nearly the same as a better result."""

    id: str
    score: float


class ImageReference(TypedDict):
    """An image, and where to look at it."""

    id: str
    media_type: str
    width: int
    height: int
    sha256: str
    content: str
    thumbnail: str


class Image(ImageReference):
    """An image of the gallery."""

    metadata: dict[str, Any]


class Result(ImageReference):
    """One result of a search."""

    score: float
    metadata: NotRequired[dict[str, Any]]
    duplicates: NotRequired[list[Duplicate]]


class Plan(TypedDict):
    """How a search ran."""

    length: int
    kind: str
    effort: NotRequired[int]
    shortlist: NotRequired[int]
    rerank: NotRequired[int]
    exact: bool
    expected_recall: NotRequired[float]
    expected_latency_ms: NotRequired[float]


class SearchAnswer(TypedDict):
    """The answer to a search."""

    results: list[Result]
    plan: Plan
    generation: int
    timing_ms: NotRequired[dict[str, float]]
    code: NotRequired[list[float]]


class BatchItem(TypedDict):
    """What became of one search: an answer or a problem."""

    status: int
    answer: NotRequired[SearchAnswer]
    problem: NotRequired[dict[str, Any]]


class AddedImage(TypedDict):
    """What became of one image that is in the gallery now."""

    id: str
    status: Literal["added", "replaced", "unchanged"]


class FailedImage(TypedDict):
    """An image that could not be used."""

    id: str
    reason: str


class Added(TypedDict):
    """What became of images that were sent: those that are in the gallery now and those that failed, in their order."""

    images: list[AddedImage]
    failed: list[FailedImage]
    added: int
    replaced: int
    unchanged: int


class Job(TypedDict):
    """A job of the service."""

    id: str
    kind: str
    state: Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]
    stage: str
    done: int
    total: int
    options: dict[str, Any]
    error: str | None
    generation: int | None
    created: str
    finished: str | None
    result: dict[str, Any] | None


class Generation(TypedDict):
    """A generation that is kept."""

    number: int
    served: bool
    created: str
    count: int
    lengths: list[int]
    encoder: str
    bytes: int


class Backup(TypedDict):
    """An archive beside the gallery."""

    name: str
    bytes: int
    created: str


class Stats(TypedDict):
    """Figures of the gallery and of the process that answers."""

    images: int
    searchable: int
    pending: int
    removed: int
    generation: int
    generations: list[int]
    encoder: str
    encoders: list[str]
    bytes: dict[str, int]
    free_bytes: int
    resident_bytes: int | None
    uptime_s: float
    jobs: list[str]

"""The shapes of searches and their answers, as the OpenAPI document tells them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from eigenlens.service.api.answer import AnswerModel
from eigenlens.service.api.images import Features, ImageReference, Neighbours
from eigenlens.service.api.problems import Problem

# Validation context of what came as text: lists are separated by commas, objects are JSON.
FROM_TEXT = {"text": True}


def _split(value: Any, info: ValidationInfo) -> Any:
    is_text = isinstance(value, str) and info.context == FROM_TEXT
    return [part.strip() for part in value.split(",") if part.strip()] if is_text else value


def _parse_json(value: Any, info: ValidationInfo) -> Any:
    if not (isinstance(value, str) and info.context == FROM_TEXT):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError('a filter is a JSON object, such as {"label": "Bag"}') from None


def _check_crop(edges: list[float]) -> list[float]:
    left, top, right, bottom = edges
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError("a crop is left, top, right and bottom as shares of the picture, 0 to 1, left before right")
    return edges


MAX_SEARCHES = 100
# Examples of each sort in one search.
MAX_EXAMPLES = 20

Include = Literal["metadata", "code", "timing"]


class SearchParameters(BaseModel):
    """How to search; in the query string, in form fields, or in the JSON body."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    crop: (
        Annotated[list[float], Field(min_length=4, max_length=4), BeforeValidator(_split), AfterValidator(_check_crop)]
        | None
    ) = Field(
        None,
        description="part of the query image to search for: left, top, right and bottom as shares of the upright "
        "picture, such as 0.25,0,0.75,0.5",
    )
    k: int = Field(10, ge=1, description="results to return")
    length: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        validation_alias=AliasChoices("length", "dimensions"),
        description="prefix length to search, one of GET /v1/lengths; auto: the fastest plan that meets the targets",
    )
    target_recall: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the exact k best by full codes that the search must find; 0.99 if no target is set",
    )
    max_latency_ms: float | None = Field(
        None, gt=0, description="limit on the time of the search itself, without decoding and encoding, in milliseconds"
    )
    rerank: Annotated[int, Field(ge=1)] | Literal["none", "full"] = Field(
        "none", description="number of coordinates for exact rescoring of a shortlist: above length, or full"
    )
    shortlist: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="number of candidates to rescore; default: 240 up to k=24, 1000 up to k=100, 10000 up to k=1000",
    )
    effort: Annotated[int, Field(ge=1)] | Literal["max"] | None = Field(
        None, description="how much of the index to visit (nprobe, efSearch), or max; default: calibrated"
    )
    filter: Annotated[dict[str, Any], BeforeValidator(_parse_json)] | None = Field(
        None,
        description='condition on metadata: {"label": "boots", "price": {"$gte": 10}}; also $in, $nin, '
        "$ne, $gt, $lt, $lte, $exists, $and, $or, $not; and ranges of coordinates of unit codes, counted from 1: "
        '{"$code": {"1": {"$gte": -0.2, "$lte": 0.1}}}',
    )
    offset: int = Field(0, ge=0, description="number of results to skip: offset=10 and k=10 return the second ten")
    min_score: float | None = Field(None, ge=-1, le=1, description="drop results with a lower score")
    min_similarity: float | None = Field(
        None,
        ge=0,
        le=100,
        description="drop results that are less like the query than so many per cent of the gallery's images are like "
        "their nearest other image",
    )
    group_duplicates: float | None = Field(
        None,
        gt=0,
        le=1,
        description="group near-duplicates: an image whose full code has this cosine or more with that of a better "
        "result, or whose bytes are the same, takes no place of its own and appears in that result's `duplicates`",
    )
    include: Annotated[list[Include], BeforeValidator(_split)] = Field(
        default_factory=lambda: list[Include](("metadata", "timing")),
        description="parts of the answer: metadata of each result, timing by stage, the query's code to search with "
        "again; default: metadata and timing",
    )


class ExampleBody(BaseModel):
    """An example of what results are to be like or unlike: exactly one of its members."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: str | None = Field(None, description="an image, base64")
    id: str | None = Field(None, description="id of an image of the gallery; the results do not include it")
    code: list[float] | None = Field(None, max_length=65536, description="a full code")

    @model_validator(mode="after")
    def _has_one_member(self) -> Self:
        if sum(value is not None for value in (self.image, self.id, self.code)) != 1:
            raise ValueError("an example has exactly one of image (base64), id and code")
        return self


class SearchBody(SearchParameters):
    """A JSON search: exactly one of image, id, code, positive and, in a gallery of nodes, features and neighbours."""

    image: str | None = Field(None, description="an image as the query, base64")
    id: str | None = Field(
        None, description="id of an image of the gallery as the query; the results do not include it"
    )
    code: list[float] | None = Field(None, max_length=65536, description="a full code as the query")
    positive: list[ExampleBody] | None = Field(
        None,
        min_length=1,
        max_length=MAX_EXAMPLES,
        description="examples of what the results are to be like: the search is by the mean p of their unit codes",
    )
    negative: list[ExampleBody] | None = Field(
        None,
        max_length=MAX_EXAMPLES,
        description="with `positive`: examples of what they are to be unlike, of mean n; the search is by p + (p - n)",
    )
    features: Features | None = Field(
        None, description="features of a node: a list of all, or an object of those that are not zero, by column"
    )
    neighbours: Neighbours | None = Field(
        None, description="ids of that node's neighbours in the gallery, over which its features are smoothed"
    )


class PlanAnswer(AnswerModel):
    """How the search ran."""

    length: int
    kind: str
    effort: int | None = None
    shortlist: int | None = None
    rerank: int | None = None
    exact: bool = Field(False, description="whether the plan always finds the exact best by full codes")
    expected_recall: float | None = Field(None, description="share of the exact k best by full codes, as calibrated")
    expected_latency_ms: float | None = Field(None, description="median of a search alone, as calibrated")


class RebuildAdviceAnswer(AnswerModel):
    """Why a rebuild would pay, and what it saves."""

    reason: str = Field(description="in words")
    gain_ms: float = Field(description="milliseconds that a default search of ten results would take less")
    gain_bytes: int = Field(description="bytes of codes and indexes that it would free")


class DuplicateAnswer(AnswerModel):
    """An image that is nearly the same as a better result."""

    id: str
    score: float


class ResultAnswer(ImageReference):
    """One result: an image and its score."""

    score: float = Field(description="cosine with the query at the plan's last length; larger is better")
    metadata: dict[str, Any] | None = None
    duplicates: list[DuplicateAnswer] | None = Field(
        None, description="near-duplicates of this image, best first; only with `group_duplicates`"
    )


class SearchAnswer(AnswerModel):
    """The answer to a search."""

    results: list[ResultAnswer]
    best_percentile: float | None = Field(
        None,
        description="share of the gallery's images, in per cent, whose nearest other image is no more like them than "
        "the best image found is like the query; null if nothing was found or the generation has no such figures",
    )
    query_percentile: float | None = Field(
        None,
        description="share of the gallery's images, in per cent, whose full codes are as far from the centre of all as "
        "the query's or farther; null if the generation has no such figures",
    )
    unlike_everything: bool | None = Field(
        None,
        description="whether nothing in the gallery looks like the query: `query_percentile` is below 1, and the best "
        "result is no copy; null if nothing was found or the generation has no such figures",
    )
    plan: PlanAnswer
    generation: int
    rebuild_advice: RebuildAdviceAnswer | None = Field(
        None, description="why a rebuild of the gallery would pay; left out if it would not"
    )
    timing_ms: dict[str, float] | None = Field(None, description="time of each stage, in milliseconds")
    code: list[float] | None = Field(None, description="the query's full code; only with `include=code`")


class BatchBody(SearchParameters):
    """Several searches: parameters for all of them, and each with its own."""

    searches: list[dict[str, Any]] = Field(
        min_length=1, max_length=MAX_SEARCHES, description="searches, each like the body of POST /v1/search"
    )


class BatchItemAnswer(AnswerModel):
    """What became of one search: an answer or a problem."""

    status: int = Field(description="status that the search alone would get")
    answer: SearchAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(AnswerModel):
    """The answers to several searches, in their order."""

    answers: list[BatchItemAnswer]
    failed: int = Field(description="number of searches with a problem")
    timing_ms: dict[str, float]


class MeasuredAnswer(PlanAnswer):
    """One plan and what calibration measured of it."""

    recall: dict[int, float] = Field(description="by k: mean share of the exact k best by full codes")
    recall_low: dict[int, float] = Field(description="by k: lower end of the 95 % confidence interval")
    latency_ms: dict[str, float] = Field(description="p50, p95 and p99 of a search alone")
    bytes_per_image: float = Field(description="bytes per image of its index and, if it rescores, of the codes")


class LengthAnswer(AnswerModel):
    """One prefix length that can be searched."""

    length: int
    kind: str
    bytes: int = Field(description="bytes of its index")
    bytes_per_image: float
    full: bool = Field(description="whether this is the full code length")
    max_effort: int | None = Field(
        description="the effort at which its index visits everything; null if the kind has no effort"
    )
    alone: MeasuredAnswer | None = Field(description="recall and latency measured for a search of this length alone")
    rescored: MeasuredAnswer | None = Field(
        None, description="the same with a shortlist rescored by full codes: rerank=full; null for the full length"
    )


class GraphAnswer(AnswerModel):
    """A graph over one prefix, beside the indexes of the lengths."""

    length: int
    kind: str
    bytes: int = Field(description="bytes in memory")
    bytes_per_image: float


class UnderFilterAnswer(AnswerModel):
    """The plans as calibration measured them under a filter that leaves a share of the images, drawn at random."""

    share: float = Field(description="share of the images that the filter leaves, 0 to 1")
    plans: list[MeasuredAnswer] = Field(description="the fastest first")


class LengthsAnswer(AnswerModel):
    """The prefix lengths of the generation that is served."""

    lengths: list[LengthAnswer]
    graph: GraphAnswer | None = Field(
        None, description="a graph over one prefix, which answers searches without a filter; null if there is none"
    )
    code_length: int
    count: int = Field(description="images that can be found")
    pending: int = Field(description="images that were added since the generation was built")
    removed: int = Field(description="images that were removed or replaced since the generation was built")
    generation: int
    plans: list[MeasuredAnswer] = Field(description="plans that length=auto chooses from, the fastest first")
    under_filters: list[UnderFilterAnswer] = Field(
        [],
        description="the same under filters of random shares of the images, by which length=auto chooses for a search "
        "with a filter; empty where filters were not measured: with FAISS, and of few images, which are compared one "
        "by one",
    )
    filters: dict[str, list[str]] = Field(
        description="metadata fields you can filter by, and the types of their values"
    )
    encoder: str
    input: Literal["image", "features"] = Field("image", description="what is searched: images, or nodes of a graph")
    features: int | None = Field(None, description="number of a node's features; null for images")
    eigenvalues: list[float]

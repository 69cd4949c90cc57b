"""The shapes of requests and answers, as the OpenAPI document tells them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from artifact import Artifact
from index.calibration import Measured
from index.filters import Filter, parse_filter
from index.plan import Plan
from service.gallery.intake import Outcome
from service.gallery.store import ImageRecord
from service.searcher import Hit


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _parse_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("a filter is a JSON object") from None


def _check_id(id: str) -> str:
    if not id or len(id) > 1024 or re.search(r"[\x00-\x1f\x7f]", id):
        raise ValueError("an id has 1 to 1024 characters and no control characters")
    if id.endswith(("/content", "/thumbnail")) or any(part in ("", ".", "..") for part in id.split("/")):
        raise ValueError(
            "an id is a path without empty parts, `.` and `..` that does not end in /content or /thumbnail"
        )
    try:
        id.encode()
    except UnicodeEncodeError:
        raise ValueError("an id is text that UTF-8 can hold") from None
    return id


_MAX_METADATA_BYTES = 64 * 1024
_MAX_FIELDS = 100
_MAX_DEPTH = 16


def _check_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError):  # they would be stored, and then fail every answer that tells them
        raise ValueError("metadata are JSON of finite numbers and text that UTF-8 can hold") from None
    if _depth(metadata) > _MAX_DEPTH:
        raise ValueError(f"metadata are nested at most {_MAX_DEPTH} deep")
    if len(metadata) > _MAX_FIELDS or size > _MAX_METADATA_BYTES:
        raise ValueError(f"metadata have at most {_MAX_FIELDS} fields and {_MAX_METADATA_BYTES} bytes")
    return metadata


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


ImageId = Annotated[str, AfterValidator(_check_id)]
Metadata = Annotated[dict[str, Any], AfterValidator(_check_metadata)]


class SearchParameters(BaseModel):
    """How to search; in the query string, in form fields, or in the JSON body."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    k: int = Field(10, ge=1, description="results to return")
    length: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        validation_alias=AliasChoices("length", "dimensions"),
        description="prefix length to search, one of GET /v1/lengths; auto: the cheapest plan that meets the targets",
    )
    target_recall: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the exact k best by full codes that has to be found; 0.99 where no target is given",
    )
    max_latency_ms: float | None = Field(
        None, gt=0, description="what the search itself may take, without decoding and encoding, in milliseconds"
    )
    rerank: Annotated[int, Field(ge=1)] | Literal["none", "full"] = Field(
        "none", description="coordinates at which a shortlist is rescored exactly: a number above length, or full"
    )
    shortlist: int | None = Field(None, ge=1, le=100_000, description="candidates that are rescored; 10 k when absent")
    effort: Annotated[int, Field(ge=1)] | Literal["max"] | None = Field(
        None, description="how much of the index is looked at (nprobe, efSearch), or max; a calibrated one when absent"
    )
    filter: Annotated[dict[str, Any], BeforeValidator(_parse_json)] | None = Field(
        None,
        description='by metadata: {"label": "boots", "price": {"$gte": 10}}; also $in, $nin, '
        "$ne, $gt, $lt, $lte, $exists, $and, $or, $not",
    )
    include: Annotated[list[Literal["code"]], BeforeValidator(_split)] = Field(
        default_factory=list, description="code: answer the query's code too, to search with again"
    )

    @property
    def condition(self) -> Filter | None:
        """The filter, understood. Raises: FilterError."""
        return None if self.filter is None else parse_filter(self.filter)

    def rerank_length(self, code_length: int) -> int | None:
        """The rerank as a number of coordinates; None for none."""
        if self.rerank == "none":
            return None
        return code_length if self.rerank == "full" else self.rerank


class SearchBody(SearchParameters):
    """A JSON search: exactly one of image, id and code."""

    image: str | None = Field(None, description="an image, base64")
    id: str | None = Field(None, description="id of an image of the gallery; it is left out of the results")
    code: list[float] | None = Field(None, max_length=65536, description="a full code")


class PlanAnswer(BaseModel):
    """How the search ran."""

    length: int
    kind: str
    effort: int | None
    shortlist: int | None
    rerank: int | None
    exact: bool = Field(False, description="whether it finds the exact best by full codes by construction")
    expected_recall: float | None = Field(None, description="share of the exact k best by full codes, as calibrated")
    expected_latency_ms: float | None = Field(None, description="median of a search alone, as calibrated")

    @classmethod
    def of(cls, plan: Plan, measured: Measured | None, *, k: int) -> PlanAnswer:
        """From a plan and what was measured of it."""
        return cls(
            length=plan.prefix_length,
            kind=plan.kind,
            effort=plan.effort,
            shortlist=plan.shortlist,
            rerank=plan.rerank_length,
            exact=measured is not None and measured.exact,
            expected_recall=None if measured is None else measured.recall_for(k).mean,
            expected_latency_ms=None if measured is None else measured.latency_ms["p50"],
        )


class ImageAnswer(BaseModel):
    """One image of the gallery."""

    id: str
    media_type: str
    width: int
    height: int
    sha256: str
    metadata: dict[str, Any]
    content: str = Field(description="address of its bytes")
    thumbnail: str = Field(description="address of a picture of at most 192 pixels a side")

    @classmethod
    def of(cls, record: ImageRecord) -> ImageAnswer:
        """From a record. The addresses name the content, so they may be cached for ever."""
        base, version = f"/v1/images/{quote(record.id)}", f"?v={record.sha256[:16]}"
        return cls(
            id=record.id,
            media_type=record.media_type,
            width=record.width,
            height=record.height,
            sha256=record.sha256,
            metadata=record.metadata,
            content=f"{base}/content{version}",
            thumbnail=f"{base}/thumbnail{version}",
        )


class ResultAnswer(ImageAnswer):
    """One result: an image and its score."""

    score: float = Field(description="cosine with the query at the plan's last length; larger is better")

    @classmethod
    def of_hit(cls, hit: Hit) -> ResultAnswer:
        """From a hit."""
        return cls(**ImageAnswer.of(hit.record).model_dump(), score=hit.score)


class SearchAnswer(BaseModel):
    """The answer to a search."""

    results: list[ResultAnswer]
    plan: PlanAnswer
    generation: int
    timing_ms: dict[str, float]
    code: list[float] | None = None


class MeasuredAnswer(PlanAnswer):
    """One plan and what calibration measured of it."""

    recall: dict[int, float] = Field(description="by k: mean share of the exact k best by full codes")
    recall_low: dict[int, float] = Field(description="by k: lower end of the 95 % confidence interval")
    latency_ms: dict[str, float] = Field(description="p50, p95 and p99 of a search alone")
    bytes_per_image: float = Field(description="of its index and, where it rescores, of the codes")

    @classmethod
    def of_measured(cls, measured: Measured) -> MeasuredAnswer:
        """From a measurement."""
        return cls(
            **PlanAnswer.of(measured.plan, measured, k=10).model_dump(),
            recall={k: recall.mean for k, recall in measured.recall.items()},
            recall_low={k: recall.low for k, recall in measured.recall.items()},
            latency_ms=dict(measured.latency_ms),
            bytes_per_image=measured.bytes_per_image,
        )


class LengthAnswer(BaseModel):
    """One prefix length that can be searched."""

    length: int
    kind: str
    bytes: int = Field(description="size of its index")
    bytes_per_image: float
    full: bool = Field(description="whether it is the whole code")
    max_effort: int | None = Field(description="the effort at which its index looks at everything; none has no effort")
    alone: MeasuredAnswer | None = Field(description="what a search of this length alone was measured to give")


class LengthsAnswer(BaseModel):
    """The prefix lengths of the generation that is served."""

    lengths: list[LengthAnswer]
    code_length: int
    count: int = Field(description="images that can be found")
    pending: int = Field(description="images that were added since the generation was built")
    removed: int = Field(description="images that were removed or replaced since the generation was built")
    generation: int
    plans: list[MeasuredAnswer] = Field(description="what length=auto chooses from, the fastest first")
    filters: dict[str, list[str]] = Field(
        description="metadata fields that can be filtered by, and their values' kinds"
    )
    encoder: str
    eigenvalues: list[float]


class RebuildBody(BaseModel):
    """Options of a rebuild."""

    model_config = ConfigDict(extra="forbid")

    lengths: list[Annotated[int, Field(ge=1)]] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="prefix lengths to build; the present ones if absent",
    )
    kinds: dict[int, str] = Field(
        default_factory=dict,
        max_length=64,
        description='index kind of some lengths, such as {"64": "ivf-sq8"}; what suits the gallery for the others',
    )


class GenerationAnswer(BaseModel):
    """One generation that is kept."""

    number: int
    served: bool
    created: str
    count: int = Field(description="images in it")
    lengths: list[int]
    encoder: str
    bytes: int = Field(description="of its files, without the codes")

    @classmethod
    def of(cls, number: int, found: Artifact, *, served: bool) -> GenerationAnswer:
        """From its manifest."""
        return cls(
            number=number,
            served=served,
            created=found.created,
            count=found.properties["count"],
            lengths=[entry["length"] for entry in found.properties["indexes"]],
            encoder=found.made_from["encoder"],
            bytes=sum(int(entry["bytes"]) for entry in found.files.values()),
        )


class AddItem(BaseModel):
    """One image to add."""

    model_config = ConfigDict(extra="forbid")

    id: ImageId
    image: str = Field(description="the image, base64")
    metadata: Metadata = Field(default_factory=dict)


class AddBody(BaseModel):
    """Images to add."""

    model_config = ConfigDict(extra="forbid")

    images: list[AddItem] = Field(min_length=1, max_length=1000)


class AddedAnswer(BaseModel):
    """What became of one image."""

    id: str
    status: Literal["added", "replaced", "unchanged", "failed"]
    reason: str | None = Field(None, description="why it failed")


class AddAnswer(BaseModel):
    """What became of images that were sent, in their order."""

    images: list[AddedAnswer]
    added: int
    replaced: int
    unchanged: int
    failed: int

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> AddAnswer:
        """From outcomes."""
        return cls(
            images=[AddedAnswer(id=o.id, status=o.status, reason=o.reason) for o in outcomes],
            added=sum(o.status == "added" for o in outcomes),
            replaced=sum(o.status == "replaced" for o in outcomes),
            unchanged=sum(o.status == "unchanged" for o in outcomes),
            failed=sum(o.status == "failed" for o in outcomes),
        )


class MetadataBody(BaseModel):
    """A change of metadata."""

    model_config = ConfigDict(extra="forbid")

    metadata: Metadata


def merged(present: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Metadata after a change: what is given is set, what is null is removed. Raises: ValueError, if too large."""
    result = {**present, **change}
    return _check_metadata({name: value for name, value in result.items() if value is not None})

"""Requests and answers of administration: rebuilds, jobs, generations, backups."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from eigenlens.service.api.answer import AnswerModel
from eigenlens.service.api.search import PlanAnswer, RebuildAdviceAnswer

# What a build is for: small indexes of all lengths, also a graph over a prefix, or the indexes of two lengths only.
Optimise = Literal["memory", "latency", "build"]


class RebuildBody(BaseModel):
    """Options of a rebuild."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lengths: list[Annotated[int, Field(ge=1)]] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="prefix lengths to build; default: those that the last build was asked for",
    )
    kinds: dict[Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")], str] = Field(
        default_factory=dict,
        max_length=64,
        description='index kind of some lengths, such as {"64": "ivf-sq8"}; default: what suits the gallery',
    )
    optimise: Optimise | None = Field(
        None,
        description="memory: all lengths, and one between two long ones where the codes want it; latency: also a graph "
        "over one prefix, which answers searches without a filter sooner; build: of the lengths only the full one and "
        "that which finds shortlists best; default: as the present generation",
    )
    encoder: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{1,64}$")] | None = Field(
        None, description="id of an encoder in the gallery (GET /v1/admin/stats); default: the present one"
    )


class ImportBody(BaseModel):
    """A folder of the server to take in."""

    model_config = ConfigDict(extra="forbid", strict=True)

    folder: str = Field(max_length=4096, description="path below the server's setting import_root")
    name: str | None = Field(
        None, max_length=64, description="name that begins the ids; default: none for the first folder of a gallery"
    )
    rebuild: bool = Field(False, description="build the next generation afterwards")


class SyncBody(BaseModel):
    """Which folders to bring a gallery in step with."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = Field(None, max_length=64, description="name of the folder; default: all folders of the gallery")
    dry_run: bool = Field(False, description="change nothing; the job's result tells what would be done")
    rebuild: bool = Field(False, description="build the next generation afterwards")


BackupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,95}\.tar$")]


class BackupBody(BaseModel):
    """Options of a backup."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: BackupName | None = Field(None, description="file name of the archive; default: the present time")
    files: bool = Field(False, description="include the bytes of images that lie in folders")


class RestoreBody(BaseModel):
    """What to restore."""

    model_config = ConfigDict(extra="forbid", strict=True)

    backup: BackupName = Field(description="name of an archive, as in GET /v1/admin/backups")
    rebuild: bool = Field(False, description="build the next generation afterwards")


class BackupAnswer(AnswerModel):
    """An archive beside the gallery."""

    name: str
    bytes: int
    created: str


class ReachedRecallAnswer(AnswerModel):
    """Recall that the last searches of one kind reached: those with the same plan, target and number of results."""

    plan: PlanAnswer = Field(description="the plan that ran, with the recall that calibration expects of it")
    k: int = Field(description="number of results; the next that calibration measures")
    filtered: bool = Field(description="whether the searches had a filter")
    target_recall: float | None = Field(description="recall that they asked for; null where a plan was fixed")
    searches: int = Field(description="searches that were repeated exactly, at most the last 1000")
    recall: float = Field(description="mean share of the exact results that they had found")
    recall_low: float = Field(description="lower end of its 95 % confidence interval")
    recall_high: float = Field(description="upper end of its 95 % confidence interval")
    below_promise: bool = Field(
        description="whether recall is certainly below the target, or below what is expected where there is none"
    )


class LiveRecallAnswer(AnswerModel):
    """Recall of real searches in the generation that is served, as the answering worker measured it."""

    share: float = Field(description="share of the searches that are repeated exactly (setting recall_share)")
    plans: list[ReachedRecallAnswer] = Field(description="by plan, those that were checked last first")


class StatsAnswer(AnswerModel):
    """Figures of the gallery and of the process that answers."""

    images: int = Field(description="images in the gallery")
    searchable: int = Field(description="images that a search can find")
    pending: int = Field(description="images that were added since the generation was built")
    removed: int = Field(description="images that were removed or replaced since the generation was built")
    generation: int = Field(description="number of the generation that is served")
    generations: list[int] = Field(description="numbers of the generations on disk")
    encoder: str = Field(description="id of the encoder that is served")
    encoders: list[str] = Field(description="ids of the encoders in the gallery; a rebuild can use any of them")
    bytes: dict[str, int] = Field(description="bytes on disk, by part of the gallery")
    free_bytes: int = Field(description="free bytes on the gallery's disk")
    resident_bytes: int | None = Field(description="memory of this process")
    uptime_s: float
    jobs: list[str] = Field(description="ids of the running jobs")
    rebuild_advice: RebuildAdviceAnswer | None = Field(
        None, description="why a rebuild would pay; null if it would not"
    )
    recent_queries: int = Field(description="codes of recent searches that the answering worker keeps")
    live_recall: LiveRecallAnswer


class Job(AnswerModel):
    """One job. `stage`, `done` and `total` say how far it is, `generation` what it published, `result` what it did."""

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


class GenerationAnswer(AnswerModel):
    """One generation that is kept."""

    number: int
    served: bool
    created: str
    count: int = Field(description="images in the generation")
    lengths: list[int]
    encoder: str
    bytes: int = Field(description="bytes of its files, without the codes")
    calibrated_on: Literal["gallery", "searches"] = Field(
        "gallery", description="what its recall was measured with: images of the gallery, or recent searches"
    )

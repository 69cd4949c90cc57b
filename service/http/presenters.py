"""Presenters: turn records, plans, manifests and jobs into the models of `service.api` that answers consist of."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from eigenlens.artifact import Artifact
from eigenlens.index.plans.advice import RebuildAdvice
from eigenlens.index.plans.calibration import Measured
from eigenlens.index.plans.plan import Plan
from eigenlens.service.api.admin import BackupAnswer, GenerationAnswer, Job, ReachedRecallAnswer
from eigenlens.service.api.embeddings import EmbeddingAnswer
from eigenlens.service.api.images import AddAnswer, AddedAnswer, FailedAnswer, ImageAnswer
from eigenlens.service.api.search import (
    DuplicateAnswer,
    MeasuredAnswer,
    PlanAnswer,
    RebuildAdviceAnswer,
    ResultAnswer,
)
from eigenlens.service.gallery.ingest import Outcome
from eigenlens.service.gallery.store.records import ImageRecord
from eigenlens.service.gallery.store.records import Job as StoredJob
from eigenlens.service.gallery.thumbnails import version_of as thumbnail_version
from eigenlens.service.search.live_recall import ReachedRecall
from eigenlens.service.search.paging import Result


def present_image(record: ImageRecord, *, root_path: str) -> ImageAnswer:
    """Return the description of an image of the gallery, with addresses below `root_path`."""
    return ImageAnswer(**_reference(record, root_path), metadata=record.metadata)


def present_outcomes(outcomes: Sequence[Outcome]) -> AddAnswer:
    """Return the outcomes of one request's images."""
    return AddAnswer(
        images=[AddedAnswer(id=o.id, status=o.status, note=o.note) for o in outcomes if o.status != "failed"],
        failed=[FailedAnswer(id=o.id, reason=o.reason or "", kind=o.kind) for o in outcomes if o.status == "failed"],
        added=sum(o.status == "added" for o in outcomes),
        replaced=sum(o.status == "replaced" for o in outcomes),
        unchanged=sum(o.status == "unchanged" for o in outcomes),
    )


def present_plan(plan: Plan, measured: Measured | None, *, k: int) -> PlanAnswer:
    """Return a plan with its calibrated latency and its recall for `k` results, if calibration measured it."""
    return PlanAnswer(**_plan_members(plan, measured, k=k))


def present_measured(measured: Measured) -> MeasuredAnswer:
    """Return a plan with its whole calibration."""
    return MeasuredAnswer(
        **_plan_members(measured.plan, measured, k=10),
        recall={k: recall.mean for k, recall in measured.recall.items()},
        recall_low={k: recall.low for k, recall in measured.recall.items()},
        latency_ms=dict(measured.latency_ms),
        bytes_per_image=measured.bytes_per_image,
    )


def present_plans(measured: Sequence[Measured]) -> list[MeasuredAnswer]:
    """Return plans with their calibration, the fastest first."""
    return [present_measured(m) for m in sorted(measured, key=lambda m: m.latency_ms["p50"])]


def present_result(result: Result, *, metadata: bool, grouped: bool, root_path: str) -> ResultAnswer:
    """Return a result; with its metadata and its near-duplicates if the search includes them."""
    record = result.hit.record
    return ResultAnswer(
        **_reference(record, root_path),
        score=result.hit.score,
        metadata=record.metadata if metadata else None,
        duplicates=[DuplicateAnswer(id=hit.record.id, score=hit.score) for hit in result.duplicates]
        if grouped
        else None,
    )


def present_embedding(index: int, code: NDArray[np.float32], *, encoding_format: str) -> EmbeddingAnswer:
    """Return a unit code, (length,), as a list of numbers or as base64 of float32."""
    if encoding_format == "base64":
        return EmbeddingAnswer(index=index, embedding=base64.b64encode(code.astype("<f4").tobytes()).decode())
    return EmbeddingAnswer(index=index, embedding=[float(x) for x in code])


def present_backup(path: Path) -> BackupAnswer:
    """Return the name, size and time of an archive."""
    status = path.stat()
    return BackupAnswer(
        name=path.name,
        bytes=status.st_size,
        created=datetime.fromtimestamp(status.st_mtime, UTC).isoformat(timespec="milliseconds"),
    )


def present_generation(number: int, artifact: Artifact, *, served: bool) -> GenerationAnswer:
    """Return the description of a generation, from its manifest."""
    return GenerationAnswer(
        number=number,
        served=served,
        created=artifact.created,
        count=artifact.properties["count"],
        lengths=[entry["length"] for entry in artifact.properties["indexes"]],
        encoder=artifact.made_from["encoder"],
        bytes=sum(int(entry["bytes"]) for entry in artifact.files.values()),
        calibrated_on=artifact.properties["calibration"].get("source", "gallery"),
    )


def present_recall(reached: ReachedRecall) -> ReachedRecallAnswer:
    """Return the recall that searches with one promise reached."""
    promise, plan = reached.promise, present_plan(reached.promise.plan, None, k=reached.promise.k)
    return ReachedRecallAnswer(
        plan=plan.model_copy(update={"expected_recall": promise.expected}),
        k=promise.k,
        filtered=promise.filtered,
        target_recall=promise.target,
        searches=reached.checks,
        recall=round(reached.mean, 5),
        recall_low=round(reached.low, 5),
        recall_high=round(reached.high, 5),
        below_promise=reached.below_promise,
    )


def present_advice(advice: RebuildAdvice | None) -> RebuildAdviceAnswer | None:
    """Return why a rebuild would pay."""
    return None if advice is None else RebuildAdviceAnswer(**asdict(advice))


def present_job(job: StoredJob) -> Job:
    """Return the description of a job."""
    return Job(**asdict(job))


def _reference(record: ImageRecord, root_path: str) -> dict[str, Any]:
    """Return the members of an ImageReference. The addresses name what is there, so they may be cached for ever."""
    base = f"{root_path}/v1/images/{quote(record.id)}"
    return {
        "id": record.id,
        "media_type": record.media_type,
        "width": record.width,
        "height": record.height,
        "sha256": record.sha256,
        "content": f"{base}/content?v={record.sha256[:16]}",
        "thumbnail": f"{base}/thumbnail?v={thumbnail_version(record.sha256)}",
    }


def _plan_members(plan: Plan, measured: Measured | None, *, k: int) -> dict[str, Any]:
    """Return the members of a PlanAnswer."""
    recall = None if measured is None else measured.recall_for(k)
    return {
        "length": plan.prefix_length,
        "kind": plan.kind,
        "effort": plan.effort,
        "shortlist": plan.shortlist,
        "rerank": plan.rerank_length,
        "exact": measured is not None and measured.exact,
        "expected_recall": None if recall is None else recall.mean,
        "expected_latency_ms": None if measured is None else measured.latency_ms.get("p50"),
    }

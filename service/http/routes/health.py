"""Probes and metrics: is the process alive, can it answer searches, what has it done. They need no key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from eigenlens.index.plans.plan import Plan
from eigenlens.service.http.state import CurrentState, State, state_of
from eigenlens.service.search.live_recall import ReachedRecall
from eigenlens.service.telemetry.metrics import RecallFigures

router = APIRouter(tags=["health"])


@router.get("/healthz")
@router.get("/livez", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """Check that the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, str | int]:
    """Check that the encoder is warm and a generation is loaded, also during a rebuild; 503 otherwise."""
    snapshot = state_of(request).snapshots.current
    return {"status": "ready", "generation": snapshot.number}


@router.get("/metrics", include_in_schema=False)
def metrics(state: CurrentState) -> Response:
    """Get the metrics in Prometheus's format."""
    state.metrics.depth.set(state.batcher.depth)
    recall = [_recall_figures(reached) for reached in state.recall.reached()]
    return Response(state.metrics.text(_figures(state), recall), media_type=CONTENT_TYPE_LATEST)


def _figures(state: State) -> dict[str, float]:
    snapshot = state.snapshots.current
    running = [job for job in state.jobs.list() if job.finished is None]
    return {
        "eigenlens_generation": snapshot.number,
        "eigenlens_gallery_images": len(snapshot.engine),
        "eigenlens_delta_images": snapshot.engine.added,
        "eigenlens_removed_images": snapshot.engine.removed,
        "eigenlens_jobs_running": len(running),
        "eigenlens_job_progress_ratio": running[0].done / running[0].total if running and running[0].total else 0.0,
    }


def _recall_figures(reached: ReachedRecall) -> RecallFigures:
    promise = reached.promise
    labels = {
        "plan": _plan_name(promise.plan),
        "k": str(promise.k),
        "target": "" if promise.target is None else f"{promise.target:g}",
        "filtered": "yes" if promise.filtered else "no",
    }
    return labels, {
        "eigenlens_live_recall": reached.mean,
        "eigenlens_live_recall_low": reached.low,
        "eigenlens_live_recall_high": reached.high,
        "eigenlens_live_recall_searches": reached.checks,
        "eigenlens_promised_recall": promise.recall,
    }


def _plan_name(plan: Plan) -> str:
    """Return a short name of a plan, such as "64 ivf-pq effort=8 shortlist=240 rerank=128"."""
    parts = {"effort": plan.effort, "shortlist": plan.shortlist, "rerank": plan.rerank_length}
    parts["final"] = plan.final_shortlist or None
    return " ".join(
        [str(plan.prefix_length), plan.kind, *(f"{name}={value}" for name, value in parts.items() if value is not None)]
    )

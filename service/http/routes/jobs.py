"""Jobs: their progress, as a list, one by one or as a stream of events, and their cancellation."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from anyio import to_thread
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from eigenlens.service.api.admin import Job
from eigenlens.service.gallery.store.records import Job as StoredJob
from eigenlens.service.http.openapi import problem_responses
from eigenlens.service.http.presenters import present_job
from eigenlens.service.http.state import CurrentState, State

router = APIRouter(prefix="/v1/admin/jobs", tags=["admin"])

_POLL_S = 0.2
_KEEP_ALIVE_S = 15.0
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {"event": {"enum": ["progress", "end"]}, "data": {"type": "string", "description": "a job, as JSON"}},
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "server-sent events: `progress` at each change and `end` at the end, each with the job as data",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


@router.get("")
def list_jobs(state: CurrentState) -> list[Job]:
    """List the last hundred jobs, newest first."""
    return [present_job(job) for job in state.jobs.list()]


@router.get("/{id}", responses=problem_responses("job-not-found"))
def get_job(id: str, state: CurrentState) -> Job:
    """Get one job and its progress."""
    return present_job(state.jobs.get(id))


@router.get("/{id}/events", response_class=StreamingResponse, responses=_EVENTS | problem_responses("job-not-found"))
async def job_events(id: str, state: CurrentState) -> StreamingResponse:
    """Follow a job: an event at each change until it ends."""
    first = await to_thread.run_sync(state.jobs.get, id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(state, first), media_type="text/event-stream", headers=headers)


@router.post("/{id}/cancel", status_code=202, responses=problem_responses("job-not-found", "job-ended"))
def cancel_job(id: str, state: CurrentState) -> Job:
    """Cancel a job. Codes that it computed are kept, and the gallery stays as it is."""
    return present_job(state.jobs.cancel(id))


async def _events(state: State, job: StoredJob) -> AsyncIterator[str]:
    sent, sent_at = None, time.monotonic()
    while True:
        if job != sent:
            yield _event("end" if job.finished else "progress", job)
            sent, sent_at = job, time.monotonic()
        elif time.monotonic() - sent_at > _KEEP_ALIVE_S:
            yield ": still there\n\n"
            sent_at = time.monotonic()
        if job.finished:
            return
        await asyncio.sleep(_POLL_S)
        job = await to_thread.run_sync(state.jobs.get, job.id)


def _event(name: str, job: StoredJob) -> str:
    return f"event: {name}\ndata: {json.dumps(asdict(job))}\n\n"

"""Administration: rebuilds and their jobs. Every route needs the admin key."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from index.generation import choose_lengths
from service.jobs import Job
from service.schemas import RebuildBody
from service.state import CurrentState, require_admin

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[Depends(require_admin)])


@router.post("/rebuild", status_code=202)
def rebuild(state: CurrentState, response: Response, body: RebuildBody | None = None) -> Job:
    """Build the next generation in the background; searches are answered from the present one until the switch."""
    lengths = None if body is None else body.lengths
    if lengths is not None:
        choose_lengths(state.searcher.snapshot.generation.code_length, lengths)  # refused now, not in the job
    job = state.runner.start_rebuild(lengths=lengths)
    response.headers["Location"] = f"/v1/admin/jobs/{job.id}"
    return job


@router.get("/jobs")
def jobs(state: CurrentState) -> list[Job]:
    """The last hundred jobs, newest first."""
    return state.jobs.list()


@router.get("/jobs/{id}")
def job(id: str, state: CurrentState) -> Job:
    """One job and how far it is."""
    return state.jobs.get(id)

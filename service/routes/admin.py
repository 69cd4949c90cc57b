"""Administration: rebuilds and their jobs, generations and the switch between them. Every route needs the admin key."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response

from index.generation import choose_lengths
from index.kinds import choose_indexes
from service.admin_schemas import GenerationAnswer, RebuildBody
from service.jobs import Job
from service.openapi import documented
from service.state import CurrentState, require_admin

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[Depends(require_admin)])


@router.post("/rebuild", status_code=202, responses=documented("job-running"))
def rebuild(state: CurrentState, response: Response, body: RebuildBody | None = None) -> Job:
    """Build the next generation in the background; searches are answered from the present one until the switch."""
    asked = body or RebuildBody()
    present = state.searcher.snapshot.generation
    # What cannot be built is refused now and not in the job.
    lengths = choose_lengths(present.code_length, asked.lengths or present.lengths)
    choose_indexes(len(present), lengths=lengths, kinds=asked.kinds)
    job = state.runner.start_rebuild(lengths=asked.lengths, kinds=asked.kinds)
    response.headers["Location"] = f"/v1/admin/jobs/{job.id}"
    return job


@router.get("/jobs")
def list_jobs(state: CurrentState) -> list[Job]:
    """The last hundred jobs, newest first."""
    return state.jobs.list()


@router.get("/jobs/{id}", responses=documented("job-not-found"))
def get_job(id: str, state: CurrentState) -> Job:
    """One job and how far it is."""
    return state.jobs.get(id)


@router.post("/jobs/{id}/cancel", status_code=202, responses=documented("job-not-found", "job-ended"))
def cancel_job(id: str, state: CurrentState) -> Job:
    """End a job without a result. What it encoded is kept; the gallery stays as it is."""
    return state.jobs.cancel(id)


@router.get("/generations")
def list_generations(state: CurrentState) -> list[GenerationAnswer]:
    """The generations that are kept, newest first."""
    served = state.searcher.snapshot.number
    return [
        GenerationAnswer.of(number, found, served=number == served)
        for number, found in reversed(list(state.gallery.manifests()))
    ]


@router.post("/generations/{number}/activate", responses=documented("generation-not-found"))
def activate_generation(number: int, state: CurrentState) -> GenerationAnswer:
    """Serve a generation that is kept. Images that were added or removed since it was built stay so."""
    state.gallery.switch(number)
    state.searcher.load()
    snapshot = state.searcher.snapshot
    return GenerationAnswer.of(snapshot.number, snapshot.generation.artifact, served=True)

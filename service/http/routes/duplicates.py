"""Duplicates of a whole gallery: a job finds them, and pages of its groups are answered from what it kept."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from eigenlens.service.api.admin import Job
from eigenlens.service.api.duplicates import (
    DuplicateGroupAnswer,
    DuplicatesAnswer,
    DuplicatesBody,
    GroupedImageAnswer,
)
from eigenlens.service.gallery.duplicates import read_duplicates
from eigenlens.service.http.openapi import problem_responses
from eigenlens.service.http.presenters import present_image
from eigenlens.service.http.routes.admin import start_job
from eigenlens.service.http.state import CurrentState, State

router = APIRouter(prefix="/v1", tags=["images"])

_MAX_LIMIT = 100
# Images of one group that an answer shows.
_MAX_SHOWN = 1000
# Groups that one call looks at: of many, few may be copies, or left. A page can have fewer groups than its limit.
_MAX_LOOKED_AT = 1000


@router.get("/duplicates", responses=problem_responses("artifact-damaged"))
def list_duplicates(
    state: CurrentState,
    limit: Annotated[int, Query(ge=1, le=_MAX_LIMIT, description="number of groups")] = 50,
    after: Annotated[int, Query(ge=0, le=2**53, description="`next` of the page before")] = 0,
    exact: Annotated[
        bool | None, Query(description="true: only groups of copies, with the same bytes; false: only the others")
    ] = None,
) -> DuplicatesAnswer:
    """List the groups of duplicates that the last job found, the largest first, page by page.

    Images that were removed or replaced since are left out, and so are groups of which one image is left. A page can
    have fewer groups than `limit`; the last one has no `next`. If no job has run yet, `found` is null.
    """
    duplicates = read_duplicates(state.gallery)
    if duplicates is None:
        return DuplicatesAnswer(groups=[], total=0, cosine=None, generation=None, found=None, next=None)
    groups: list[DuplicateGroupAnswer] = []
    number = after
    end = min(len(duplicates), after + _MAX_LOOKED_AT)
    while number < end and len(groups) < limit:
        group = _present(state, duplicates.group(number))
        if len(group.images) > 1 and exact in (None, group.exact):
            groups.append(group)
        number += 1
    return DuplicatesAnswer(
        groups=groups,
        total=len(duplicates),
        cosine=duplicates.cosine,
        generation=duplicates.generation,
        found=duplicates.found,
        next=number if number < len(duplicates) else None,
    )


@router.post("/admin/duplicates", status_code=202, responses=problem_responses("job-running"), tags=["admin"])
def find_duplicates(state: CurrentState, response: Response, body: DuplicatesBody | None = None) -> Job:
    """Find all duplicates of the gallery in the background; `GET /v1/duplicates` then lists them.

    A join on short prefixes leaves the few pairs that can be near-duplicates, and full codes settle which are.
    """
    return start_job(state, response, "duplicates", (body or DuplicatesBody()).model_dump())


def _present(state: State, group: dict[int, float]) -> DuplicateGroupAnswer:
    shown = list(group)[:_MAX_SHOWN]
    records = state.gallery.store.records(shown)
    images = [
        GroupedImageAnswer(
            **present_image(records[key], root_path=state.settings.root_path).model_dump(), cosine=round(group[key], 4)
        )
        for key in shown
        if key in records
    ]
    return DuplicateGroupAnswer(exact=len({image.sha256 for image in images}) == 1, images=images)

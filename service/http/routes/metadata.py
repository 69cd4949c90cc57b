"""What is known of images beside their pixels: facets of the metadata, and what a camera wrote into a file."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from eigenlens.model.images.exif import read_exif
from eigenlens.service.api.facets import FacetAnswer, FacetsAnswer, FacetValueAnswer
from eigenlens.service.api.images import ExifAnswer
from eigenlens.service.gallery.nodes import NODE_TYPE
from eigenlens.service.http.openapi import problem_responses
from eigenlens.service.http.state import CurrentState

router = APIRouter(prefix="/v1", tags=["images"])


@router.get("/facets")
def list_facets(
    state: CurrentState,
    limit: Annotated[int, Query(ge=1, le=1000, description="values of each field")] = 12,
) -> FacetsAnswer:
    """List the metadata fields of text or truth values, and how many images of the gallery have each value.

    Fields of more than 1,000 values, and those whose values fewer than two images share on average, are left out.
    """
    return FacetsAnswer(
        facets=[
            FacetAnswer(
                field=facet.field,
                values=[FacetValueAnswer(value=value, count=count) for value, count in facet.values[:limit]],
                others=max(0, len(facet.values) - limit),
            )
            for facet in state.facets.of(state.gallery.store)
        ]
    )


@router.get("/exif", responses=problem_responses("image-not-found", "image-content-gone"))
async def image_exif(state: CurrentState, id: Annotated[str, Query(max_length=8192)]) -> ExifAnswer:
    """Get what a camera wrote into an image file (EXIF), as text by name; nothing where there is none."""
    record = await state.read_threads.run(state.gallery.store.record, id)
    if record.media_type == NODE_TYPE:
        return ExifAnswer(exif={})
    data = await state.read_threads.run(state.gallery.store.content, record.key)
    return ExifAnswer(exif=await state.read_threads.run(read_exif, data))

"""The map: which images a region holds, and which of them stand for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from eigenlens.service.api.gallery_map import MAPPED, MapAnswer, MapParameters, MappedAnswer
from eigenlens.service.errors import RequestError
from eigenlens.service.gallery.store import ImageRecord
from eigenlens.service.http.presenters import present_image
from eigenlens.service.http.state import CurrentState
from eigenlens.service.search.gallery_map import Box

router = APIRouter(prefix="/v1", tags=["eigenfunctions"])


@router.get("/map")
def gallery_map(state: CurrentState, parameters: Annotated[MapParameters, Query()]) -> MapAnswer:
    """Get a region of the map: how many images each part holds, and one image for each cell of a grid.

    An image lies where two coordinates of its unit code say. Images that were added since the build are on it too.
    """
    snapshot = state.snapshots.current
    x, y, axes = parameters.x, parameters.y, min(MAPPED, snapshot.engine.code_length)
    if max(x, y) > axes:
        raise RequestError(f"the axes are two of the coordinates 1 to {axes}, not {x} and {y}")
    state.map.update(state.gallery, number=snapshot.number, engine=snapshot.engine)
    box = state.map.whole(x, y) if parameters.edges is None else Box(*parameters.edges)
    cells, parts = (parameters.columns, parameters.rows), (parameters.parts, parameters.parts)
    region = state.map.region(x, y, box, cells=cells, parts=parts)
    records = state.gallery.store.records(region.keys.tolist())
    return MapAnswer(
        generation=snapshot.number,
        x=x,
        y=y,
        axes=axes,
        left=box.left,
        right=box.right,
        bottom=box.bottom,
        top=box.top,
        count=region.count,
        counts=region.counts.tolist(),
        images=[
            _present(records[key], values, root_path=state.settings.root_path)
            for key, values in zip(region.keys.tolist(), region.values.tolist(), strict=True)
            if key in records
        ],
    )


def _present(record: ImageRecord, place: list[float], *, root_path: str) -> MappedAnswer:
    return MappedAnswer(**present_image(record, root_path=root_path).model_dump(), x=place[0], y=place[1])

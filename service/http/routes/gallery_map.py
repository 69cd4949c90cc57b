"""The map: which images a region holds, and which of them stand for it."""

from __future__ import annotations

import csv
import io
from typing import Annotated

from fastapi import APIRouter, Query, Response

from eigenlens.service.api.gallery_map import (
    MAPPED,
    LegendAnswer,
    MapAnswer,
    MapParameters,
    MappedAnswer,
    RegionParameters,
)
from eigenlens.service.errors import RequestError
from eigenlens.service.http.presenters import present_image
from eigenlens.service.http.state import CurrentState, State
from eigenlens.service.search.gallery_map import Box

router = APIRouter(prefix="/v1", tags=["eigenfunctions"])


@router.get("/map")
def gallery_map(state: CurrentState, parameters: Annotated[MapParameters, Query()]) -> MapAnswer:
    """Get a region of the map: how many images each part holds, and one image for each cell of a grid.

    An image lies where two coordinates of its unit code say. Images that were added since the build are on it too.
    """
    x, y, axes, box = _update(state, parameters)
    cells, parts = (parameters.columns, parameters.rows), (parameters.parts, parameters.parts)
    legend = None if parameters.colour is None else state.map.legend(state.gallery, parameters.colour)
    region = state.map.region(x, y, box, cells=cells, parts=parts, legend=legend)
    commonest = region.commonest
    shown = list(zip(region.keys.tolist(), region.values.tolist(), region.ranks.tolist(), strict=True))
    named = state.map.places_of(x, y, state.gallery.store.keys_of(parameters.ids)) if parameters.ids else None
    return MapAnswer(
        generation=state.snapshots.current.number,
        x=x,
        y=y,
        axes=axes,
        left=box.left,
        right=box.right,
        bottom=box.bottom,
        top=box.top,
        count=region.count,
        counts=region.counts.tolist(),
        legend=None
        if legend is None
        else [
            LegendAnswer(value=value, count=count) for value, count in zip(legend.values, legend.counts, strict=True)
        ],
        commonest=None if commonest is None else commonest.tolist(),
        named=None if named is None else _present(state, named),
        images=_present(state, shown),
    )


@router.get("/map/images", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
def list_region(state: CurrentState, parameters: Annotated[RegionParameters, Query()]) -> Response:
    """Get all images of a region as CSV: the id of each, and its values on both axes; in the order of the ids."""
    x, y, _, box = _update(state, parameters)
    keys, values = state.map.rows_in(x, y, box)
    records = state.gallery.store.records(keys.tolist())
    rows = sorted(
        (records[key].id, *place) for key, place in zip(keys.tolist(), values.tolist(), strict=True) if key in records
    )
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["id", f"number_{x}", f"number_{y}"])
    table.writerows((id, f"{across:.6f}", f"{up:.6f}") for id, across, up in rows)
    # Ids may hold half a surrogate pair.
    data = text.getvalue().encode("utf-8", "replace")
    headers = {"Content-Disposition": 'attachment; filename="map.csv"'}
    return Response(data, media_type="text/csv; charset=utf-8", headers=headers)


def _update(state: State, parameters: RegionParameters) -> tuple[int, int, int, Box]:
    """Bring the map up to date. Returns: both axes, how many there are, and the region. Raises: RequestError."""
    snapshot = state.snapshots.current
    x, y, axes = parameters.x, parameters.y, min(MAPPED, snapshot.engine.code_length)
    if max(x, y) > axes:
        raise RequestError(f"the axes are two of the coordinates 1 to {axes}, not {x} and {y}")
    state.map.update(state.gallery, number=snapshot.number, engine=snapshot.engine)
    return x, y, axes, state.map.whole(x, y) if parameters.edges is None else Box(*parameters.edges)


def _present(state: State, places: list[tuple[int, list[float], int]]) -> list[MappedAnswer]:
    """Return the images of these keys, values on both axes and ranks; without those that were removed meanwhile."""
    records = state.gallery.store.records([key for key, _, _ in places])
    images = {key: present_image(record, root_path=state.settings.root_path) for key, record in records.items()}
    return [
        MappedAnswer(**images[key].model_dump(), x=values[0], y=values[1], rank=rank)
        for key, values, rank in places
        if key in images
    ]

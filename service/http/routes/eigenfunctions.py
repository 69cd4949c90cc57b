"""Eigenfunctions: each coordinate of a code over the gallery's images, and where a query's value lies."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query

from eigenlens.index.codes.eigenfunctions import Eigenfunctions
from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.service.api.eigenfunctions import (
    EigenfunctionAnswer,
    HistogramAnswer,
    PlacedAnswer,
    SpectrumAnswer,
    WhereAnswer,
)
from eigenlens.service.errors import EigenfunctionNotFoundError
from eigenlens.service.http.openapi import problem_responses
from eigenlens.service.http.presenters import present_image
from eigenlens.service.http.state import CurrentState, State
from eigenlens.service.search.snapshot import Snapshot

router = APIRouter(prefix="/v1/eigenfunctions", tags=["eigenfunctions"])

_BINS = 48
_SHOWN = 8


@router.get("")
def spectrum(state: CurrentState) -> SpectrumAnswer:
    """List the eigenvalue of every coordinate and its range over the images of the gallery."""
    snapshot = state.snapshots.current
    low, median, high = _of(snapshot).shares(0.05, 0.5, 0.95).T.tolist()
    eigenvalues = [float(value) for value in snapshot.encoder.eigenvalues]
    return SpectrumAnswer(generation=snapshot.number, eigenvalues=eigenvalues, low=low, median=median, high=high)


@router.get("/{coordinate}", response_model_exclude_none=True, responses=problem_responses("eigenfunction-not-found"))
def eigenfunction(
    coordinate: int,
    state: CurrentState,
    value: Annotated[
        float | None,
        Query(allow_inf_nan=False, description="value of a query's code at this coordinate, scaled to unit norm"),
    ] = None,
) -> EigenfunctionAnswer:
    """Describe one coordinate, counted from 1: eigenvalue, images at its ends and middle, a query's place."""
    snapshot = state.snapshots.current
    functions = _of(snapshot)
    if not 1 <= coordinate <= len(functions):
        raise EigenfunctionNotFoundError(f"there is no coordinate {coordinate}; there are 1 to {len(functions)}")
    function = functions[coordinate - 1]
    images = {position: _images(state, snapshot, rows, coordinate) for position, rows in function.rows.items()}
    return EigenfunctionAnswer(
        coordinate=coordinate,
        eigenvalue=float(snapshot.encoder.eigenvalues[coordinate - 1]),
        generation=snapshot.number,
        histogram=HistogramAnswer(
            low=float(function.quantiles[0]),
            high=float(function.quantiles[-1]),
            shares=[round(float(share), 6) for share in function.histogram(_BINS)],
        ),
        query=None if value is None else WhereAnswer(value=value, share_below=function.share_below(value)),
        **images,
    )


def _of(snapshot: Snapshot) -> Eigenfunctions:
    functions = snapshot.engine.eigenfunctions
    if functions is None:
        raise EigenfunctionNotFoundError(
            f"generation {snapshot.number} has no eigenfunctions: it was built without images, or by an earlier "
            "version; rebuild the gallery to see them"
        )
    return functions


def _images(
    state: State, snapshot: Snapshot, rows: np.ndarray[tuple[int], np.dtype[np.int64]], coordinate: int
) -> list[PlacedAnswer]:
    """Return the images of the first rows whose image still exists, with their values at the coordinate."""
    engine = snapshot.engine
    keys = engine.keys[rows].tolist()
    records = state.gallery.store.records(keys)
    present = [key for key in keys if key in records]
    if not present:
        return []
    codes = unit_prefix(snapshot.codes_of(present), engine.code_length)
    placed = [(records[key], float(code[coordinate - 1])) for key, code in zip(present, codes, strict=True)]
    return [
        PlacedAnswer(**present_image(record, root_path=state.settings.root_path).model_dump(), value=value)
        for record, value in placed[:_SHOWN]
    ]

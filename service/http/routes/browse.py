"""Browsing a gallery: its images page by page, or a random sample."""

from __future__ import annotations

import re
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query

from eigenlens.service.api.images import ImagesAnswer, Order
from eigenlens.service.errors import RequestError
from eigenlens.service.gallery.store.records import ImageRecord
from eigenlens.service.http.presenters import present_image
from eigenlens.service.http.state import CurrentState, State

router = APIRouter(prefix="/v1/images", tags=["images"])

_MAX_LIMIT = 200


@router.get("")
def browse(
    state: CurrentState,
    limit: Annotated[int, Query(ge=1, le=_MAX_LIMIT, description="number of images")] = 50,
    after: Annotated[str | None, Query(max_length=8192, description="`next` of the page before")] = None,
    prefix: Annotated[str, Query(max_length=8192, description="only ids that begin with this")] = "",
    contains: Annotated[
        str, Query(max_length=8192, description="only ids that have this somewhere; capital letters do not matter")
    ] = "",
    order: Annotated[
        Order, Query(description="newest: the images added last come first; taken: those taken last do")
    ] = "name",
    sample: Annotated[
        int | None, Query(ge=0, le=2**31, description="return a random sample instead of a page; this is the seed")
    ] = None,
) -> ImagesAnswer:
    """List the images of the gallery in the order of their ids, of their addition or of their dates, or a sample.

    The date is the field `taken` of the metadata, which a photograph gets from what its camera wrote (EXIF). Images
    without one come last.
    """
    if sample is not None:
        return ImagesAnswer(
            images=[
                present_image(record, root_path=state.settings.root_path) for record in _sample(state, limit, sample)
            ]
        )
    if order == "taken":
        return _by_date(state, limit, after=after, prefix=prefix, contains=contains)
    newest = order == "newest"
    # No key has 19 digits; `int` refuses numbers of thousands.
    if newest and after is not None and not re.fullmatch("[0-9]{1,18}", after):
        raise RequestError(f"'{after}' is no `next` of a page of the newest images")
    records = state.gallery.store.page(limit + 1, after=after, prefix=prefix, contains=contains, newest=newest)
    more = len(records) > limit
    return ImagesAnswer(
        images=[present_image(record, root_path=state.settings.root_path) for record in records[:limit]],
        next=(str(records[limit - 1].key) if newest else records[limit - 1].id) if more else None,
    )


def _by_date(state: State, limit: int, *, after: str | None, prefix: str, contains: str) -> ImagesAnswer:
    """Return a page of the images by date. Raises: RequestError."""
    place = None
    if after is not None:
        matched = re.fullmatch("([0-9]{1,18}) (.*)", after, flags=re.DOTALL)
        if matched is None:
            raise RequestError(f"'{after}' is no `next` of a page of images by date")
        place = matched[2], int(matched[1])
    page = state.dates.page(state.gallery.store, limit + 1, after=place, prefix=prefix, contains=contains)
    (moment, key), _ = page[limit - 1] if len(page) > limit else (("", 0), None)
    return ImagesAnswer(
        images=[present_image(record, root_path=state.settings.root_path) for _, record in page[:limit]],
        next=f"{key} {moment}" if len(page) > limit else None,
    )


def _sample(state: State, count: int, seed: int) -> list[ImageRecord]:
    """Return a random sample of the served generation: one image of each of `count` equal ranges of its rows.

    Images in neighbouring rows are similar, so such a sample is more varied than a plain one.
    """
    keys = state.snapshots.current.engine.keys
    count = min(count, len(keys))
    edges = np.linspace(0, len(keys), count + 1).astype(np.int64)
    random = np.random.default_rng(seed)
    rows = random.permutation(random.integers(edges[:-1], edges[1:]))
    chosen = keys[rows].tolist()
    records = state.gallery.store.records(chosen)
    return [records[key] for key in chosen if key in records]

"""Answers about the map: images laid out by two coordinates of their codes."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from eigenlens.service.api.answer import AnswerModel
from eigenlens.service.api.images import ImageAnswer

# Leading coordinates that can be axes.
MAPPED = 8
# Values of unit codes are within 1; a map that is zoomed out shows some more.
_MIN_SIDE, _MAX_EDGE = 1e-5, 100.0
_EDGE = "edge of the region; the whole map without any edge"


class RegionParameters(BaseModel):
    """A region of the map."""

    model_config = ConfigDict(extra="forbid")

    x: int = Field(1, ge=1, le=MAPPED, description="coordinate of the horizontal axis, counted from 1")
    y: int = Field(2, ge=1, le=MAPPED, description="coordinate of the vertical axis")
    left: float | None = Field(None, ge=-_MAX_EDGE, le=_MAX_EDGE, description=_EDGE)
    right: float | None = Field(None, ge=-_MAX_EDGE, le=_MAX_EDGE, description=_EDGE)
    bottom: float | None = Field(None, ge=-_MAX_EDGE, le=_MAX_EDGE, description=_EDGE)
    top: float | None = Field(None, ge=-_MAX_EDGE, le=_MAX_EDGE, description=_EDGE)

    @model_validator(mode="after")
    def _is_region(self) -> Self:
        if self.x == self.y:
            raise ValueError("the axes are two different coordinates")
        if self.edges is None and (self.left, self.right, self.bottom, self.top) != (None,) * 4:
            raise ValueError("a region has all four edges: left, right, bottom and top; the whole map has none")
        if self.edges is not None:
            left, right, bottom, top = self.edges
            if not (right - left >= _MIN_SIDE and top - bottom >= _MIN_SIDE):
                raise ValueError(f"left is less than right, and bottom less than top, by {_MIN_SIDE} or more")
        return self

    @property
    def edges(self) -> tuple[float, float, float, float] | None:
        """The left, right, bottom and top edge; None for the whole map."""
        if self.left is None or self.right is None or self.bottom is None or self.top is None:
            return None
        return self.left, self.right, self.bottom, self.top


class MapParameters(RegionParameters):
    """A region of the map, and how finely it is shown."""

    columns: int = Field(12, ge=1, le=40, description="columns of the grid of images")
    rows: int = Field(8, ge=1, le=40, description="rows of the grid of images")
    parts: int = Field(40, ge=1, le=100, description="columns and rows of the grid of counts")
    colour: str | None = Field(
        None, max_length=200, description="metadata field whose commonest values are told for each part"
    )
    ids: list[str] = Field(
        default_factory=list, max_length=100, description="images whose places are told too, wherever they are"
    )


class MappedAnswer(ImageAnswer):
    """An image and its place on the map: two coordinates of its unit code."""

    x: float
    y: float
    rank: int = Field(
        description="place in a random order of the images: of those in a cell, the one with the smallest rank is shown"
    )


class LegendAnswer(AnswerModel):
    """A common value of a metadata field."""

    value: str
    count: int = Field(description="images of the gallery that have it")


class MapAnswer(AnswerModel):
    """A region of the map. Values are those of codes scaled to unit norm."""

    generation: int
    x: int = Field(description="coordinate of the horizontal axis, counted from 1")
    y: int = Field(description="coordinate of the vertical axis")
    axes: int = Field(description="coordinates that can be axes: 1 to this")
    left: float
    right: float
    bottom: float
    top: float
    count: int = Field(description="images in the region")
    counts: list[list[int]] = Field(description="images in each part of the region, row by row from the bottom")
    legend: list[LegendAnswer] | None = Field(
        None, description="with `colour`: the ten commonest values in the gallery, the commonest first"
    )
    commonest: list[list[int]] | None = Field(
        None,
        description="with `colour`: place in the legend, from 0, of the value that most images of each part have, -1 "
        "for any other value or none; in the shape of `counts`",
    )
    named: list[MappedAnswer] | None = Field(None, description="with `ids`: those images that are on the map")
    images: list[MappedAnswer] = Field(description="at most one for each cell of a grid over the region")

"""Answers about eigenfunctions: what each coordinate of a code looks like in the gallery."""

from __future__ import annotations

from pydantic import Field

from eigenlens.service.api.answer import AnswerModel
from eigenlens.service.api.images import ImageAnswer


class SpectrumAnswer(AnswerModel):
    """All coordinates at a glance. Values are those of codes scaled to unit norm."""

    generation: int
    eigenvalues: list[float]
    low: list[float] = Field(description="by coordinate: the value below which 5 % of the images lie")
    median: list[float]
    high: list[float] = Field(description="by coordinate: the value below which 95 % of the images lie")


class PlacedAnswer(ImageAnswer):
    """An image and its value."""

    value: float


class HistogramAnswer(AnswerModel):
    """How a coordinate's values are spread over the gallery."""

    low: float = Field(description="the smallest value")
    high: float = Field(description="the largest value")
    shares: list[float] = Field(description="share of the images in equal intervals from low to high")


class WhereAnswer(AnswerModel):
    """Where a query falls."""

    value: float
    share_below: float = Field(description="share of the images with a smaller value, 0 to 1")


class EigenfunctionAnswer(AnswerModel):
    """One coordinate."""

    coordinate: int = Field(description="number of the coordinate, counted from 1")
    eigenvalue: float
    generation: int
    top: list[PlacedAnswer] = Field(description="images with the largest values, the largest first")
    middle: list[PlacedAnswer] = Field(description="images nearest to the median")
    bottom: list[PlacedAnswer] = Field(description="images with the smallest values, the smallest first")
    histogram: HistogramAnswer
    query: WhereAnswer | None = Field(None, description="place of the value that was sent")

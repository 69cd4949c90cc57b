"""Answers about facets: what the metadata of a gallery's images say, with counts."""

from __future__ import annotations

from pydantic import Field

from eigenlens.service.api.answer import AnswerModel


class FacetValueAnswer(AnswerModel):
    """One value of a field."""

    value: str | bool
    count: int = Field(description="images that have it")


class FacetAnswer(AnswerModel):
    """One field of the metadata."""

    field: str
    values: list[FacetValueAnswer] = Field(description="the most frequent first")
    others: int = Field(description="number of further values")


class FacetsAnswer(AnswerModel):
    """The fields that images share values of; `filter` of a search takes field and value."""

    facets: list[FacetAnswer]

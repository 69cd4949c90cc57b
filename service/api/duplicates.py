"""Requests and answers about duplicates of a whole gallery."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from eigenlens.service.api.answer import AnswerModel
from eigenlens.service.api.images import ImageAnswer

DEFAULT_COSINE = 0.98


class DuplicatesBody(BaseModel):
    """What counts as a near-duplicate."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cosine: float = Field(
        DEFAULT_COSINE,
        ge=0.5,
        le=1.0,
        description="images whose full codes have this cosine or more are near-duplicates; 1.0 finds copies",
    )


class GroupedImageAnswer(ImageAnswer):
    """One image of a group of duplicates."""

    cosine: float = Field(description="of its full code and that of the group's best image, which has 1")


class DuplicateGroupAnswer(AnswerModel):
    """Images that are duplicates of each other, of which all but one may be superfluous."""

    exact: bool = Field(description="whether all have the same bytes")
    images: list[GroupedImageAnswer] = Field(
        description="best first: the one with the most pixels and, among these, the sharpest; then by cosine"
    )


class DuplicatesAnswer(AnswerModel):
    """Groups that the last search for duplicates found, without images that were removed since.

    There are none, and `cosine`, `generation` and `found` are null, if duplicates were not looked for yet.
    """

    groups: list[DuplicateGroupAnswer] = Field(description="the largest first")
    total: int = Field(description="groups that the search found")
    cosine: float | None = Field(description="threshold of that search")
    generation: int | None = Field(description="number of the generation that was searched")
    found: str | None = Field(description="when it ended, in ISO 8601; null if duplicates were not looked for yet")
    next: int | None = Field(description="`after` of the next page; null at the end")

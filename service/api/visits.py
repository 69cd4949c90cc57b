"""The administrator's link: a token, and the key that is given for it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from eigenlens.service.api.answer import AnswerModel


class VisitBody(BaseModel):
    """The token of a link."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: str = Field(max_length=200, description="what stands behind #admin= in the link")


class VisitAnswer(AnswerModel):
    """A key with the scope admin."""

    key: str

"""The shape of a problem (RFC 9457), as the OpenAPI document tells it."""

from __future__ import annotations

from pydantic import Field

from eigenlens.service.api.answer import AnswerModel


class WrongParameter(AnswerModel):
    """One parameter that cannot be used."""

    name: str
    reason: str


class Problem(AnswerModel):
    """Why a request cannot be answered."""

    type: str = Field(description="identifies the kind of problem for programs; it never changes")
    title: str = Field(description="the status in words")
    status: int
    detail: str = Field(description="what you asked for and what would work, for people")
    instance: str = Field(description="path of the request")
    request_id: str | None = Field(description="as in the header X-Request-Id and in the service's log")
    parameters: list[WrongParameter] | None = Field(None, description="wrong parameters, with the reason of each")
    available: list[int] | None = Field(None, description="prefix lengths you can use")

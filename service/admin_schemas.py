"""The shapes of requests and answers of administration, as the OpenAPI document tells them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from artifact import Artifact


class RebuildBody(BaseModel):
    """Options of a rebuild."""

    model_config = ConfigDict(extra="forbid")

    lengths: list[Annotated[int, Field(ge=1)]] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="prefix lengths to build; the present ones if absent",
    )
    kinds: dict[int, str] = Field(
        default_factory=dict,
        max_length=64,
        description='index kind of some lengths, such as {"64": "ivf-sq8"}; what suits the gallery for the others',
    )


class GenerationAnswer(BaseModel):
    """One generation that is kept."""

    number: int
    served: bool
    created: str
    count: int = Field(description="images in it")
    lengths: list[int]
    encoder: str
    bytes: int = Field(description="of its files, without the codes")

    @classmethod
    def of(cls, number: int, found: Artifact, *, served: bool) -> GenerationAnswer:
        """From its manifest."""
        return cls(
            number=number,
            served=served,
            created=found.created,
            count=found.properties["count"],
            lengths=[entry["length"] for entry in found.properties["indexes"]],
            encoder=found.made_from["encoder"],
            bytes=sum(int(entry["bytes"]) for entry in found.files.values()),
        )

"""Requests and answers of OpenAI's embeddings interface, with images as data URIs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from eigenlens.service.api.answer import AnswerModel

MAX_INPUTS = 256
MODEL = "eigenlens"

ImageUri = Annotated[
    str, StringConstraints(pattern=r"^data:image/[A-Za-z0-9.+-]{1,40};base64,[A-Za-z0-9+/_\s-]+={0,2}\s*$")
]


class EmbeddingsBody(BaseModel):
    """Images to embed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: ImageUri | Annotated[list[ImageUri], Field(min_length=1, max_length=MAX_INPUTS)] = Field(
        description="an image as a data URI (data:image/jpeg;base64,...), or a list of them"
    )
    model: str = Field(MODEL, max_length=200, description="name of a model, as in GET /v1/models")
    dimensions: int | None = Field(
        None, ge=1, description="number of leading coordinates: sliced, then normalised; default: all"
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="format of the codes; base64 is of float32, little endian"
    )
    modality: Literal["image"] = Field("image", description="type of the input")
    user: str | None = Field(None, max_length=1000, description="accepted and ignored")


class EmbeddingAnswer(AnswerModel):
    """One embedding."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(AnswerModel):
    """Always nothing: images have no tokens."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingsAnswer(AnswerModel):
    """Embeddings in the order of the input."""

    object: Literal["list"] = "list"
    data: list[EmbeddingAnswer]
    model: str
    usage: Usage = Usage()


class ModelAnswer(AnswerModel):
    """The encoder that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="seconds since 1970")
    owned_by: str = "eigenlens"
    encoder: str = Field(description="id of the encoder artifact")
    dimensions: int = Field(description="coordinates of a full code")
    is_matryoshka: Literal[True] = True
    matryoshka_dimensions: list[int] = Field(
        description="prefix lengths that can be searched; embeddings can have any number up to the full one"
    )


class ModelsAnswer(AnswerModel):
    """The models that there are."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]


class OpenAIErrorDetail(AnswerModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(AnswerModel):
    """An error as OpenAI's interface tells it."""

    error: OpenAIErrorDetail

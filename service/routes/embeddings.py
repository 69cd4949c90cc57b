"""OpenAI's embeddings interface: images in as data URIs, codes or prefixes of them out."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray

from index.codes import unit_prefix
from model.errors import ImageError
from model.images.decode import load_square
from service.embedding_schemas import (
    MODEL,
    EmbeddingAnswer,
    EmbeddingsAnswer,
    EmbeddingsBody,
    ModelAnswer,
    ModelsAnswer,
)
from service.errors import BodyTooLargeError, InputError, ModelNotFoundError
from service.openapi import documented
from service.routes.uploads import decode_base64
from service.searcher import Snapshot
from service.state import CurrentState, State

router = APIRouter(tags=["embeddings"])

_BATCH = 32


@router.post("/v1/embeddings", responses=documented("model-not-found"))
@router.post("/embeddings", include_in_schema=False)
async def embeddings(body: EmbeddingsBody, state: CurrentState) -> EmbeddingsAnswer:
    """Codes of images, or prefixes of them, of unit length. Works with OpenAI's client libraries."""
    snapshot = state.searcher.snapshot
    _require(snapshot, body.model)
    length = body.dimensions or snapshot.encoder.code_length
    if length > snapshot.encoder.code_length:
        raise InputError(f"dimensions is {length}; a code has {snapshot.encoder.code_length}", parameter="dimensions")
    given = [body.input] if isinstance(body.input, str) else body.input
    limit = state.settings.max_image_bytes
    images = [decode_base64(uri, name="input") for uri in given]
    for place, image in enumerate(images):
        if len(image) > limit:
            raise BodyTooLargeError(f"input {place} has {len(image)} bytes; at most {limit} are taken")
    codes = unit_prefix(await state.compute.run(_encode, state, snapshot, images), length)
    return EmbeddingsAnswer(
        data=[
            EmbeddingAnswer.of(place, code, encoding_format=body.encoding_format) for place, code in enumerate(codes)
        ],
        model=body.model,
    )


@router.get("/v1/models")
async def list_models(state: CurrentState) -> ModelsAnswer:
    """The encoder that is served, with the prefix lengths of its codes that can be searched."""
    return ModelsAnswer(data=[_model(state.searcher.snapshot, MODEL)])


@router.get("/v1/models/{model}", responses=documented("model-not-found"))
async def get_model(model: str, state: CurrentState) -> ModelAnswer:
    """One model."""
    snapshot = state.searcher.snapshot
    _require(snapshot, model)
    return _model(snapshot, model)


def _require(snapshot: Snapshot, model: str) -> None:
    known = (MODEL, snapshot.encoder.id)
    if model not in known:
        raise ModelNotFoundError(f"there is no model '{model}'; there are {', '.join(known)}")


def _model(snapshot: Snapshot, id: str) -> ModelAnswer:
    encoder = snapshot.encoder
    return ModelAnswer(
        id=id,
        created=int(datetime.fromisoformat(encoder.artifact.created).timestamp()),
        encoder=encoder.id,
        dimensions=encoder.code_length,
        matryoshka_dimensions=list(snapshot.generation.lengths),
    )


def _encode(state: State, snapshot: Snapshot, images: list[bytes]) -> NDArray[np.float32]:
    encoder, max_pixels = snapshot.encoder, state.settings.max_pixels
    codes = []
    for start in range(0, len(images), _BATCH):
        pixels = []
        for place, image in enumerate(images[start : start + _BATCH], start):
            loaded = load_square(image, encoder.image_size, max_pixels=max_pixels)
            if isinstance(loaded, ImageError):
                raise InputError(f"input {place}: {loaded}", parameter="input")
            pixels.append(loaded)
        codes.append(encoder.encode(np.stack(pixels)))
    return np.concatenate(codes)

"""OpenAI's embeddings interface: images in as data URIs, codes or prefixes of them out."""

from __future__ import annotations

import asyncio
from datetime import datetime

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray

from eigenlens.index.codes.prefix import unit_prefix
from eigenlens.model.errors import ImageError
from eigenlens.service.api.embeddings import (
    MODEL,
    EmbeddingsAnswer,
    EmbeddingsBody,
    ModelAnswer,
    ModelsAnswer,
)
from eigenlens.service.errors import BodyTooLargeError, InputError, ModelNotFoundError, NotReadyError
from eigenlens.service.http.bodies import decode_base64
from eigenlens.service.http.openapi import problem_responses
from eigenlens.service.http.presenters import present_embedding
from eigenlens.service.http.state import CurrentState
from eigenlens.service.search.pipeline import Query
from eigenlens.service.search.snapshot import Snapshot

router = APIRouter(tags=["embeddings"])

# Images of one request that are encoded at once, so that other requests keep their share of the queue.
_AT_ONCE = 16


@router.post("/v1/embeddings", responses=problem_responses("model-not-found"))
@router.post("/embeddings", include_in_schema=False)
async def embeddings(request: Request, body: EmbeddingsBody, state: CurrentState) -> EmbeddingsAnswer:
    """Get codes of images, or prefixes of them, with unit length. Works with OpenAI's client libraries."""
    snapshot = state.snapshots.current
    _require(snapshot, body.model)
    length = body.dimensions or snapshot.encoder.code_length
    if length > snapshot.encoder.code_length:
        raise InputError(f"dimensions is {length}; a code has {snapshot.encoder.code_length}", parameter="dimensions")
    uris = [body.input] if isinstance(body.input, str) else body.input
    limit = state.settings.max_image_bytes
    images = [decode_base64(uri, name="input") for uri in uris]
    for number, image in enumerate(images):
        if len(image) > limit:
            raise BodyTooLargeError(f"input {number} has {len(image)} bytes; at most {limit} are taken")
    free = asyncio.Semaphore(_AT_ONCE)

    async def encode(number: int, image: bytes) -> NDArray[np.float32]:
        async with free:
            try:
                return (await state.batcher.run(Query(None, image=image), receive=request.receive)).code
            except ImageError as error:
                raise InputError(f"input {number}: {error}", parameter="input") from error

    codes = await asyncio.gather(*(encode(number, image) for number, image in enumerate(images)))
    if state.snapshots.current.encoder is not snapshot.encoder:
        raise NotReadyError("another encoder is served since a moment ago; try again")
    return EmbeddingsAnswer(
        data=[
            present_embedding(number, code, encoding_format=body.encoding_format)
            for number, code in enumerate(unit_prefix(np.stack(codes), length))
        ],
        model=body.model,
    )


@router.get("/v1/models")
async def list_models(state: CurrentState) -> ModelsAnswer:
    """Describe the encoder that is served, with the prefix lengths you can search."""
    return ModelsAnswer(data=[_model(state.snapshots.current, MODEL)])


@router.get("/v1/models/{model}", responses=problem_responses("model-not-found"))
async def get_model(model: str, state: CurrentState) -> ModelAnswer:
    """Describe one model."""
    snapshot = state.snapshots.current
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
        matryoshka_dimensions=list(snapshot.engine.lengths),
    )

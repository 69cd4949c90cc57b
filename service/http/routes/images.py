"""Images of the gallery: reading one, its bytes and its thumbnail; adding, replacing and removing images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from eigenlens.model.images.sources import SourceImage, too_large
from eigenlens.service.api.images import AddAnswer, ImageAnswer, MetadataBody, merged
from eigenlens.service.errors import BodyTooLargeError, ImageChangedError, RequestError
from eigenlens.service.gallery.ingest import Outcome, ingest
from eigenlens.service.gallery.node_pictures import draw_node
from eigenlens.service.gallery.nodes import NODE_TYPE, NewNode, ingest_nodes, require_images, require_nodes
from eigenlens.service.gallery.store.records import ImageRecord
from eigenlens.service.gallery.thumbnails import Thumbnail
from eigenlens.service.gallery.thumbnails import version_of as thumbnail_version
from eigenlens.service.http.bodies import read_images, read_one
from eigenlens.service.http.openapi import ADD_BODY, FILE, PUT_BODY, problem_responses
from eigenlens.service.http.presenters import present_image, present_outcomes
from eigenlens.service.http.ranges import respond_with
from eigenlens.service.http.state import CurrentState, State

router = APIRouter(prefix="/v1/images", tags=["images"])
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"description": "the picture", "content": {"image/*": {"schema": FILE}}},
    304: {"description": "the client's copy of the picture is current"},
}
_PART: dict[int | str, dict[str, Any]] = {
    206: {"description": "the part that was asked for", "content": {"image/*": {"schema": FILE}}},
}
_ADDED: dict[int | str, dict[str, Any]] = {201: {"model": ImageAnswer, "description": "the id is new"}}
_GONE = ("image-content-gone",)
_DAMAGED = ("not-an-image", "too-many-pixels", "damaged-image")


class _ImageId(PathConvertor):
    """`{id:image}` in a route: an id, but not the path of an image's content or thumbnail."""

    regex = PathConvertor.regex + "(?<!/content)(?<!/thumbnail)"


register_url_convertor("image", _ImageId())


@router.post("", openapi_extra=ADD_BODY)
async def add_images(
    request: Request,
    state: CurrentState,
    keep_metadata: Annotated[
        bool, Query(description="leave images with the same content unchanged, even if their metadata differs")
    ] = False,
) -> AddAnswer:
    """Add images, or replace those with the same id. After the answer they are durable and searches find them.

    `images` lists those that are now in the gallery, `failed` those that could not be used, each with its reason.
    """
    images = await read_images(request)
    outcomes = await state.ingest_threads.run(_ingest, state, images, keep_metadata=keep_metadata)
    return present_outcomes(outcomes)


@router.get(
    "/{id:path}/content",
    response_class=Response,
    responses=_BYTES | _PART | problem_responses("image-not-found", "range", *_GONE),
)
async def image_content(id: str, request: Request, state: CurrentState) -> Response:
    """Get the original bytes of an image, or those that `Range` asks for; of a node, a card of its metadata."""
    record = await state.read_threads.run(state.gallery.store.record, id)
    headers = _caching(record.sha256[:16], request)
    if _is_known(headers, request):
        return Response(status_code=304, headers=headers)
    if record.media_type == NODE_TYPE:
        return _node_picture(record)
    data = await state.read_threads.run(state.gallery.store.content, record.key)
    return respond_with(data, request, media_type=record.media_type, headers=headers)


@router.get(
    "/{id:path}/thumbnail",
    response_class=Response,
    responses=_BYTES | problem_responses("image-not-found", *_GONE, *_DAMAGED),
)
async def image_thumbnail(id: str, request: Request, state: CurrentState) -> Response:
    """Get a picture of an image, at most 192 pixels a side; of a node, a card of its metadata."""
    record = await state.read_threads.run(state.gallery.store.record, id)
    headers = _caching(thumbnail_version(record.sha256), request)
    if _is_known(headers, request):
        return Response(status_code=304, headers=headers)
    if record.media_type == NODE_TYPE:
        return _node_picture(record)
    thumbnail = state.thumbnails.get(record.sha256)
    if thumbnail is None:
        thumbnail = await state.read_threads.run(_make, state, record)
    return Response(thumbnail.data, media_type=thumbnail.media_type, headers=headers)


@router.get("/{id:image}", responses=problem_responses("image-not-found"))
def get_image(id: str, state: CurrentState) -> ImageAnswer:
    """Get what the gallery stores about an image."""
    return present_image(state.gallery.store.record(id), root_path=state.settings.root_path)


@router.put(
    "/{id:image}",
    openapi_extra=PUT_BODY,
    responses=_ADDED | problem_responses("image-not-found"),
)
async def put_image(id: str, request: Request, response: Response, state: CurrentState) -> ImageAnswer:
    """Add or replace one image, sent as the body itself or as a form's file. 201 if the id is new."""
    image = await read_one(request, id)
    limit = state.settings.max_image_bytes
    if len(image.data) > limit:
        raise BodyTooLargeError(too_large(len(image.data), limit))
    outcome = (await state.ingest_threads.run(_ingest, state, [image]))[0]
    if outcome.status == "failed":
        await state.read_threads.run(_refuse, state, image)
    response.status_code = 201 if outcome.status == "added" else 200
    record = await state.read_threads.run(state.gallery.store.record, id)
    return present_image(record, root_path=state.settings.root_path)


@router.patch("/{id:image}", responses=problem_responses("image-not-found", "image-changed"))
def change_metadata(id: str, body: MetadataBody, state: CurrentState) -> ImageAnswer:
    """Change metadata: fields in the object are set, fields that are null are removed (RFC 7396)."""
    store, snapshot = state.gallery.store, state.snapshots.current
    record = store.record(id)
    code = snapshot.code_of(record.key)
    try:
        metadata = merged(record.metadata, body.metadata)
    except ValueError as error:
        raise RequestError(str(error)) from None
    changed = store.replace_metadata(id, metadata, key=record.key, code=code, encoder_id=snapshot.encoder.id)
    if not changed:
        raise ImageChangedError(f"image '{id}' was changed at the same time; look at it and try again")
    state.snapshots.sync()
    return present_image(store.record(id), root_path=state.settings.root_path)


@router.delete("/{id:image}", status_code=204, responses=problem_responses("image-not-found"))
def delete_image(id: str, state: CurrentState) -> None:
    """Remove an image. No search that starts after the answer returns it."""
    record = state.gallery.store.record(id)
    state.gallery.store.remove([record.id])
    state.snapshots.sync()


def _ingest(state: State, items: Sequence[SourceImage | NewNode], *, keep_metadata: bool = False) -> list[Outcome]:
    encoder, store = state.snapshots.current.encoder, state.gallery.store
    images = [item for item in items if isinstance(item, SourceImage)]
    nodes = [item for item in items if isinstance(item, NewNode)]
    if nodes and images:
        raise RequestError("one request adds images or nodes, not both")
    if nodes:
        outcomes = ingest_nodes(store, require_nodes(encoder), nodes)
        state.snapshots.sync()
        return outcomes
    limit = state.settings.max_image_bytes
    bounded = [
        image if len(image.data) <= limit else replace(image, data=b"", problem=too_large(len(image.data), limit))
        for image in images
    ]
    outcomes = ingest(
        store,
        require_images(encoder),
        bounded,
        state.decoders,
        max_pixels=state.settings.max_pixels,
        keep_metadata=keep_metadata,
    )
    state.snapshots.sync()
    return outcomes


def _refuse(state: State, image: SourceImage) -> None:
    """Raise the error that a search with this image would raise."""
    encoder = require_images(state.snapshots.current.encoder)
    loaded = image.load(encoder.image_size, max_pixels=state.settings.max_pixels, preprocessing=encoder.preprocessing)
    raise loaded if isinstance(loaded, Exception) else RequestError("the image cannot be used")


def _make(state: State, record: ImageRecord) -> Thumbnail:
    content = state.gallery.store.content(record.key)
    return state.thumbnails.make(record.sha256, content, max_pixels=state.settings.max_pixels)


def _node_picture(record: ImageRecord) -> Response:
    """Return a card of a node's metadata; these may change, so that it is not kept."""
    picture = draw_node(record)
    headers = {"Cache-Control": "private, no-cache", "Content-Security-Policy": "default-src 'none'"}
    return Response(picture.data, media_type=picture.media_type, headers=headers)


def _caching(version: str, request: Request) -> dict[str, str]:
    """Return the caching headers: an address with its version (?v=) always gives the same, any other has an ETag."""
    named = request.query_params.get("v") == version
    lifetime = "private, max-age=31536000, immutable" if named else "private, no-cache"
    return {"ETag": f'"{version}"', "Cache-Control": lifetime}


def _is_known(headers: dict[str, str], request: Request) -> bool:
    known = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
    return headers["ETag"] in known

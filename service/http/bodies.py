"""Images in the body of a request: in a form, in JSON as base64, or as the body itself."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from pydantic import TypeAdapter
from starlette.datastructures import FormData, UploadFile

from eigenlens.model.images.sources import SourceImage
from eigenlens.service.api.images import MAX_ADDED_IMAGES, AddBody, AddItem, ImageId, Metadata
from eigenlens.service.errors import ContentTypeError, InputError, RequestError
from eigenlens.service.gallery.nodes import NewNode

_MAX_FIELDS = 40
# What writers of base64 differ in: line breaks, and the two last letters of the URL-safe alphabet.
_PLAIN_BASE64 = str.maketrans({"-": "+", "_": "/", "\n": None, "\r": None, " ": None, "\t": None})
_ID: TypeAdapter[str] = TypeAdapter(ImageId)
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_METADATA: TypeAdapter[dict[str, Any]] = TypeAdapter(Metadata)


def media_type_of(request: Request) -> str:
    """Return the media type of a request's body, in lower case and without parameters; empty if there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def files_of(form: FormData) -> list[UploadFile]:
    """Return the files of a form's field `image`, at least one. Raises: RequestError."""
    files = [value for name, value in form.multi_items() if name == "image" and isinstance(value, UploadFile)]
    if not files:
        raise RequestError("the form has no file in its field `image`; try: curl -F image=@photo.jpg URL")
    return files


async def read_images(request: Request) -> list[SourceImage | NewNode]:
    """Read the images of a form, or the images or nodes of a JSON body.

    Raises: RequestError; ContentTypeError; ValidationError.
    """
    media_type = media_type_of(request)
    if media_type == "multipart/form-data":
        async with request.form(max_files=MAX_ADDED_IMAGES, max_fields=2 * MAX_ADDED_IMAGES) as form:
            files = files_of(form)
            _refuse_others(form, ("image", "id", "metadata"))
            ids = [str(value) for name, value in form.multi_items() if name == "id"] or [
                f.filename or "" for f in files
            ]
            if len(ids) != len(files):
                raise RequestError(
                    f"there are {len(files)} files and {len(ids)} ids; give one id for each file, or none"
                )
            metadata = _metadata_of(form.get("metadata"), len(files))
            return [
                SourceImage(_ID.validate_python(id), await file.read(), metadata=values)
                for id, file, values in zip(ids, files, metadata, strict=True)
            ]
    if media_type == "application/json":
        body = AddBody.model_validate(await read_json(request))
        return [_image_or_node(item) for item in body.images]
    raise ContentTypeError(
        "images are taken as multipart/form-data with files `image`, or application/json, "
        f"not '{media_type or 'nothing'}'"
    )


def _image_or_node(item: AddItem) -> SourceImage | NewNode:
    node = node_of(item.id, item.features, item.neighbours, metadata=item.metadata)
    if node is not None:
        return node
    assert item.image is not None
    return SourceImage(item.id, decode_base64(item.image), metadata=item.metadata)


def node_of(
    id: str,
    features: list[float] | dict[str, float] | None,
    neighbours: list[str] | None,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> NewNode | None:
    """Return the node that a body describes; None if it has neither features nor neighbours."""
    if features is None and neighbours is None:
        return None
    numbers: list[float] | dict[int, float] | None = (
        {int(column): value for column, value in features.items()} if isinstance(features, dict) else features
    )
    return NewNode(id, numbers, tuple(neighbours or ()), metadata or {})


async def read_one(request: Request, id: str) -> SourceImage:
    """Read the only image of a request. Raises: RequestError; ContentTypeError; ValidationError."""
    checked = _ID.validate_python(id)
    media_type = media_type_of(request)
    if media_type == "multipart/form-data":
        async with request.form(max_files=1, max_fields=_MAX_FIELDS) as form:
            image = files_of(form)[0]
            _refuse_others(form, ("image", "metadata"))
            return SourceImage(checked, await image.read(), metadata=_metadata_of(form.get("metadata"), 1)[0])
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return SourceImage(checked, await request.body())
    raise ContentTypeError(
        f"an image is taken as the body itself (image/...) or as a form's file `image`, not '{media_type or 'nothing'}'"
    )


async def read_json(request: Request) -> dict[str, Any]:
    """Read a JSON object. Raises: RequestError."""
    text = await request.body()
    try:
        body = _parse(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise RequestError("the JSON body has to be an object")
    return body


def _parse(text: bytes) -> Any:
    """Parse JSON. Raises: ValueError; RecursionError."""
    try:
        return _JSON.validate_json(text)
    except ValueError:
        return json.loads(text)  # takes longer, and takes more: other encodings, lone surrogates


def decode_base64(text: str, *, name: str = "image") -> bytes:
    """Decode base64, plain or URL-safe, with or without line breaks, padding and the head of a data URI.

    Raises: InputError.
    """
    letters = (text.partition(",")[2] if text.startswith("data:") else text).translate(_PLAIN_BASE64).rstrip("=")
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"`{name}` is not base64: {error}", parameter=name) from None


def _refuse_others(form: FormData, known: tuple[str, ...]) -> None:
    for name in form:
        if name not in known:
            raise InputError(f"there is no field {name!r}; there are {', '.join(known)}", parameter=name)


def _metadata_of(field: Any, count: int) -> list[dict[str, Any]]:
    if field is None:
        return [{} for _ in range(count)]
    try:
        parsed = json.loads(str(field))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"`metadata` is not JSON: {error}") from None
    each = parsed if isinstance(parsed, list) else [parsed] * count
    if len(each) != count:
        raise RequestError(
            f"there are {count} files and metadata for {len(each)}; give one object for each, or one for all"
        )
    return [_METADATA.validate_python(values) for values in each]

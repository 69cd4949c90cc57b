"""Images that a request brings: from a form, from JSON with base64, or as the body itself."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from pydantic import TypeAdapter
from starlette.datastructures import FormData, UploadFile

from eigenlens.model.images.sources import SourceImage
from eigenlens.service.api.images import AddBody, ImageId, Metadata
from eigenlens.service.errors import ContentTypeError, InputError, RequestError

MAX_IMAGES = 1000
_MAX_HEAD = 1024
_BOUNDARY = re.compile(r'; *boundary="?([A-Za-z0-9\'()+_,./:=?-]{1,70})"?$')
_HEAD = re.compile(
    rb'content-disposition: form-data; name="image"; filename="[^"\\\r\n]*"(\r\ncontent-type: [^\r\n]*)?', re.IGNORECASE
)
_MAX_FIELDS = 40
_ID: TypeAdapter[str] = TypeAdapter(ImageId)
_METADATA: TypeAdapter[dict[str, Any]] = TypeAdapter(Metadata)

FILE: dict[str, Any] = {"type": "string", "format": "binary"}


# An image as the body itself.
ITSELF: dict[str, dict[str, Any]] = {"application/octet-stream": FILE, "image/*": FILE}


def body_of(others: Mapping[str, dict[str, Any]], **fields: dict[str, Any]) -> dict[str, Any]:
    """For the API document: a body that is a form with a file `image` and more fields, or of other media types."""
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": FILE, **fields},
        "additionalProperties": False,
    }
    content = {name: {"schema": schema} for name, schema in {"multipart/form-data": form, **others}.items()}
    return {"requestBody": {"required": True, "content": content}}


def parameters_of(schemas: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """For the API document: parameters of the query string, none of which has to be given."""
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in schemas.items()]


ADD_BODY = body_of(
    {"application/json": {"$ref": "#/components/schemas/AddBody"}},
    image={
        "type": "array",
        "items": FILE,
        "maxItems": MAX_IMAGES,
        "description": "files; their names are the images' ids unless `id` gives others",
    },
    id={"type": "array", "items": {"type": "string"}, "description": "one for each file"},
    metadata={
        "anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
        "description": "a JSON object for all files, or a JSON list of one object for each",
    },
)
PUT_BODY = body_of(ITSELF, metadata={"type": "object", "description": "as JSON"})


def media_type_of(request: Request) -> str:
    """The type of a request's body without its parameters, in lower case; empty if none is said."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def files_of(form: FormData) -> list[UploadFile]:
    """The files of a form's field `image`, at least one. Raises: RequestError."""
    files = [value for name, value in form.multi_items() if name == "image" and isinstance(value, UploadFile)]
    if not files:
        raise RequestError("the form has no file in its field `image`; try: curl -F image=@photo.jpg URL")
    return files


def lone_file(content_type: str, body: bytes) -> bytes | None:
    """The file of a form that has nothing but a file `image`, as most clients write it; None for any other body.

    A parser for forms takes longer than a search does.
    """
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return None
    line = b"--" + boundary[1].encode("latin-1")
    begin, end = body.find(b"\r\n\r\n", 0, _MAX_HEAD), body.find(b"\r\n" + line, len(line))
    head_is_known = body.startswith(line + b"\r\n") and _HEAD.fullmatch(body, len(line) + 2, max(begin, 0)) is not None
    if not head_is_known or end < begin + 4 or body[end + 2 :] not in (line + b"--\r\n", line + b"--"):
        return None
    return body[begin + 4 : end]


async def read_images(request: Request) -> list[SourceImage]:
    """The images of a form or of a JSON body. Raises: RequestError; ContentTypeError; ValidationError."""
    media_type = media_type_of(request)
    if media_type == "multipart/form-data":
        async with request.form(max_files=MAX_IMAGES, max_fields=2 * MAX_IMAGES) as form:
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
        return [SourceImage(item.id, decode_base64(item.image), metadata=item.metadata) for item in body.images]
    raise ContentTypeError(
        "images are taken as multipart/form-data with files `image`, or application/json, "
        f"not '{media_type or 'nothing'}'"
    )


async def read_one(request: Request, id: str) -> SourceImage:
    """The one image of a request. Raises: RequestError; ContentTypeError; ValidationError."""
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
    """A JSON object. Raises: RequestError."""
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise RequestError("the JSON body has to be an object")
    return body


def decode_base64(text: str, *, name: str = "image") -> bytes:
    """Bytes of base64, with or without the head of a data URI. Raises: InputError."""
    try:
        return base64.b64decode(text.rpartition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"`{name}` is not base64", parameter=name) from None


def _refuse_others(form: FormData, known: tuple[str, ...]) -> None:
    for name in form:
        if name not in known:
            raise InputError(f"there is no field {name!r}; there are {', '.join(known)}", parameter=name)


def _metadata_of(given: Any, count: int) -> list[dict[str, Any]]:
    if given is None:
        return [{} for _ in range(count)]
    try:
        parsed = json.loads(str(given))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"`metadata` is not JSON: {error}") from None
    each = parsed if isinstance(parsed, list) else [parsed] * count
    if len(each) != count:
        raise RequestError(
            f"there are {count} files and metadata for {len(each)}; give one object for each, or one for all"
        )
    return [_METADATA.validate_python(values) for values in each]

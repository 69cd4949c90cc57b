"""Parts of a file: the header Range of RFC 9110, with one range of bytes."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from eigenlens.service.errors import RangeError

# No file has a size of 19 digits; `int` refuses numbers of thousands.
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def respond_with(data: bytes, request: Request, *, media_type: str, headers: dict[str, str]) -> Response:
    """Return the response with all of `data` or with the range that a request asks for; `headers` have its ETag.

    Several ranges, and other units than bytes, are answered with all of it, as RFC 9110 allows.

    Raises: RangeError, if the range is beyond the end.
    """
    headers = {**headers, "Accept-Ranges": "bytes"}
    match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    is_same = request.headers.get("if-range", headers["ETag"]) == headers["ETag"]
    if match is None or match[0] == "bytes=-" or not is_same:
        return Response(data, media_type=media_type, headers=headers)
    first, last = match[1], match[2]
    if first and last and int(first) > int(last):
        return Response(data, media_type=media_type, headers=headers)
    begin = int(first) if first else max(0, len(data) - int(last))
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    if begin >= end:
        raise RangeError(size=len(data))
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
    return Response(data[begin:end], 206, media_type=media_type, headers=headers)

"""A quick reader of the most common form: one file, written as most clients write it."""

from __future__ import annotations

import re

_MAX_HEAD = 1024
_BOUNDARY = re.compile(r'; *boundary="?([A-Za-z0-9\'()+_,./:=?-]{1,70})"?$')
_HEAD = re.compile(
    rb'content-disposition: form-data; name="image"; filename="[^"\\\r\n]*"(\r\ncontent-type: [^\r\n]*)?', re.IGNORECASE
)


def single_file_of_form(content_type: str, body: bytes) -> bytes | None:
    """Return the file of a form that has nothing but a file `image`, as most clients write it; None for any other body.

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

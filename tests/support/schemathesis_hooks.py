"""What schemathesis does here beyond its own cases: HEAD for every GET, and every other body in gzip.

It loads this file by itself (`tests.contract` names it). How many requests of each sort were answered is in the file
that the variable COUNTS_FILE names.
"""

from __future__ import annotations

import atexit
import copy
import gzip
import json
import os
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import requests
import schemathesis
from requests.adapters import HTTPAdapter

COUNTS_FILE = "COUNTS_FILE"
_counts: Counter[str] = Counter()
_send = HTTPAdapter.send


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Document HEAD beside each GET: the same parameters and statuses, and no body."""
    for operations in raw_schema["paths"].values():
        if "get" in operations:
            head = copy.deepcopy(operations["get"])
            head["operationId"] = f"head_{head['operationId']}"
            for response in head["responses"].values():
                response.pop("content", None)
                response.pop("links", None)
            operations["head"] = head


def send_sometimes_in_gzip(adapter: HTTPAdapter, request: requests.PreparedRequest, **options: Any) -> Any:
    """Send a request, half of the bodies in gzip: which, their content decides, so that a case can be repeated."""
    body = request.body.encode() if isinstance(request.body, str) else request.body
    if isinstance(body, bytes) and zlib.crc32(body) % 2 and "Content-Encoding" not in request.headers:
        request.body = gzip.compress(body, mtime=0)
        request.headers["Content-Encoding"] = "gzip"
        request.headers["Content-Length"] = str(len(request.body))
    answer = _send(adapter, request, **options)
    _counts["HEAD"] += request.method == "HEAD"
    _counts["body in gzip"] += request.headers.get("Content-Encoding") == "gzip"
    _counts["answer in gzip"] += answer.headers.get("Content-Encoding") == "gzip"
    return answer


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], response: schemathesis.Response
) -> None:
    """Check that an answer to HEAD has no body."""
    if case.method.upper() == "HEAD":
        assert not response.content, f"HEAD {case.path} was answered with a body"


@atexit.register
def _write_counts() -> None:
    if COUNTS_FILE in os.environ:
        Path(os.environ[COUNTS_FILE]).write_text(json.dumps(_counts))


HTTPAdapter.send = send_sometimes_in_gzip  # type: ignore[method-assign, assignment]

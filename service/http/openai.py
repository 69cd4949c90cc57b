"""Errors in OpenAI's shape, for the routes that follow OpenAI's interface."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse

from eigenlens.service.http.policy import policy_of

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ErrorResponse(JSONResponse):
    """An error in OpenAI's shape."""

    def render(self, content: Any) -> bytes:
        """Write the error in ASCII: it may repeat what a client sent, and UTF-8 cannot encode lone surrogates."""
        return json.dumps(content).encode()


def is_openai_path(path: str) -> bool:
    """Return whether errors of a path have OpenAI's shape."""
    return policy_of(path).error_style == "openai"


def status_of(status: int) -> int:
    """Return the status that such a client expects: 400 in place of 422."""
    return 400 if status == 422 else status


def error(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a problem in OpenAI's shape; `code` is the last part of its type."""
    status = problem["status"]
    wrong = problem.get("parameters") or [{"name": None}]
    return {
        "error": {
            "message": problem["detail"],
            "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
            "param": wrong[0]["name"],
            "code": problem["type"].removeprefix("/problems/"),
        }
    }

"""Errors as RFC 9457 problems: one table from error types to statuses. No error is answered in any other form."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from eigenlens.artifact import ArtifactError, EigenlensError
from eigenlens.index import errors as index_errors
from eigenlens.model import errors as model_errors
from eigenlens.service import errors
from eigenlens.service.http import openai

log = logging.getLogger(__name__)

# Error type, status, name of the problem. The nearest base class of an error that is listed here applies.
TABLE: tuple[tuple[type[EigenlensError], int, str], ...] = (
    (index_errors.PrefixLengthError, 422, "prefix-length-not-built"),
    (index_errors.RerankLengthError, 422, "rerank-length"),
    (index_errors.ResultCountError, 422, "result-count"),
    (index_errors.PlanConflictError, 422, "plan-conflict"),
    (index_errors.LengthRangeError, 422, "length-range"),
    (index_errors.CodesError, 422, "code-shape"),
    (index_errors.IndexKindError, 422, "index-kind"),
    (index_errors.EffortError, 422, "effort"),
    (index_errors.FilterError, 422, "filter"),
    (index_errors.TargetError, 422, "target"),
    (index_errors.SimilarityError, 422, "similarity"),
    (index_errors.EngineUnavailableError, 503, "engine-unavailable"),
    (index_errors.SearchError, 500, "search-failed"),
    (model_errors.NotAnImageError, 415, "not-an-image"),
    (model_errors.ImageTooLargeError, 413, "too-many-pixels"),
    (model_errors.ImageError, 422, "damaged-image"),
    (model_errors.ModelError, 500, "encoder-failed"),
    (errors.ContentTypeError, 415, "content-type"),
    (errors.BodyTooLargeError, 413, "too-many-bytes"),
    (errors.BodyMissingError, 400, "body-missing"),
    (errors.ContentCodingError, 415, "content-coding"),
    (errors.RangeError, 416, "range"),
    (errors.UploadTimeoutError, 408, "upload-timeout"),
    (errors.MalformedRequestError, 400, "malformed-request"),
    (errors.AddressTooLongError, 400, "address-too-long"),
    (errors.HeadersTooLargeError, 431, "headers-too-large"),
    (errors.InputError, 422, "input"),
    (errors.RequestError, 422, "request"),
    (errors.ModelNotFoundError, 404, "model-not-found"),
    (errors.ImageNotFoundError, 404, "image-not-found"),
    (errors.ImageContentGoneError, 410, "image-content-gone"),
    (errors.JobNotFoundError, 404, "job-not-found"),
    (errors.JobRunningError, 409, "job-running"),
    (errors.TooFewQueriesError, 409, "too-few-queries"),
    (errors.JobEndedError, 409, "job-ended"),
    (errors.GenerationNotFoundError, 404, "generation-not-found"),
    (errors.EigenfunctionNotFoundError, 404, "eigenfunction-not-found"),
    (errors.GenerationInUseError, 409, "generation-in-use"),
    (errors.EncoderNotFoundError, 404, "encoder-not-found"),
    (errors.FolderError, 422, "folder"),
    (errors.BackupNotFoundError, 404, "backup-not-found"),
    (errors.BackupExistsError, 409, "backup-exists"),
    (errors.BackupError, 422, "backup-damaged"),
    (errors.ImageChangedError, 409, "image-changed"),
    (errors.GalleryBusyError, 409, "gallery-busy"),
    (errors.DiskFullError, 507, "disk-full"),
    (errors.InsufficientSpaceError, 507, "insufficient-space"),
    (errors.ReadOnlyError, 409, "read-only"),
    (errors.DatabaseBusyError, 503, "database-busy"),
    (errors.DatabaseUnreachableError, 503, "database-unreachable"),
    (errors.DatabaseDamagedError, 500, "database-damaged"),
    (errors.SystemProblemError, 500, "system"),
    (errors.KeyMissingError, 401, "key-missing"),
    (errors.KeyScopeError, 403, "key-scope"),
    (errors.OverloadedError, 429, "overloaded"),
    (errors.RateLimitError, 429, "rate-limited"),
    (errors.DeadlineError, 429, "deadline"),
    (errors.NotReadyError, 503, "not-ready"),
    (errors.ServiceError, 500, "service-failed"),
    (ArtifactError, 500, "artifact-damaged"),
)
_BY_TYPE = {error: (status, name) for error, status, name in TABLE}
_HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}

# What pydantic calls the alternatives of a parameter that may be of several types.
_ALTERNATIVE = re.compile(r"constrained-|literal\[|function-")

FORESEEN = (EigenlensError, ValidationError, HTTPException, ClientDisconnect, OSError, sqlite3.Error)


class ProblemResponse(JSONResponse):
    """A response with a problem document, application/problem+json."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        """Write the problem in ASCII: it may repeat what a client sent, and UTF-8 cannot encode lone surrogates."""
        return json.dumps(content).encode()


def status_of(error: EigenlensError) -> tuple[int, str]:
    """Return the status and the problem's name of an error."""
    return next((_BY_TYPE[cls] for cls in type(error).__mro__ if cls in _BY_TYPE), (500, "unforeseen"))


def explain(error: EigenlensError | ValidationError, *, request: Request) -> dict[str, Any]:
    """Return the problem document of an error, for a whole request or for one search of a batch."""
    if isinstance(error, ValidationError):
        return _invalid(request, error.errors())
    status, name = status_of(error)
    more: dict[str, Any] = {}
    if isinstance(error, index_errors.PrefixLengthError):
        more = {"available": error.available}
    if isinstance(error, errors.InputError):
        more = {"parameters": [{"name": error.parameter, "reason": str(error)}]}
    return problem(status, name, str(error), request=request, **more)


def problem(status: int, name: str, detail: str, *, request: Request, **more: Any) -> dict[str, Any]:
    """Return a problem document; `more` are further members, such as the available prefix lengths."""
    request_id = request.scope.get("request_id")
    return document_of(status, name, detail, path=request.url.path, request_id=request_id) | more


def document_of(status: int, name: str, detail: str, *, path: str, request_id: str | None) -> dict[str, Any]:
    """Return the members that every problem document has."""
    return {
        "type": f"/problems/{name}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path,
        "request_id": request_id,
    }


def answer(document: dict[str, Any]) -> JSONResponse:
    """Return the response with a problem document; in OpenAI's shape on the routes that follow its interface."""
    status = document["status"]
    headers = _HEADERS.get(status)
    if openai.is_openai_path(document["instance"]):
        return openai.ErrorResponse(openai.error(document), status_code=openai.status_of(status), headers=headers)
    return ProblemResponse(document, status_code=status, headers=headers)


def response_to(error: Exception, request: Request) -> JSONResponse:
    """Return the response to a request that ended in an error."""
    if isinstance(error, OSError | sqlite3.Error):
        log.error("a request failed for a reason of the system", exc_info=error)
        error = errors.explained(error)
    if isinstance(error, EigenlensError | ValidationError):
        response = answer(explain(error, request=request))
        if isinstance(error, errors.RateLimitError):
            response.headers["Retry-After"] = str(error.retry_after_s)
        if isinstance(error, errors.ContentCodingError):
            response.headers["Accept-Encoding"] = "gzip"
        if isinstance(error, errors.RangeError):
            response.headers["Content-Range"] = f"bytes */{error.size}"
        return response
    if isinstance(error, RequestValidationError):
        return answer(_invalid(request, error.errors()))
    if isinstance(error, HTTPException):
        name = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        response = answer(problem(error.status_code, name, str(error.detail), request=request))
        response.headers.update(error.headers or {})
        return response
    if isinstance(error, ClientDisconnect):
        return answer(problem(400, "client-gone", "the client left before its request was complete", request=request))
    return answer(problem(500, "unforeseen", "the service failed; its log has the reason", request=request))


def install(app: FastAPI) -> None:
    """Answer every error of the application as a problem."""

    async def respond(request: Request, error: Exception) -> JSONResponse:
        return response_to(error, request)

    for kind in (*FORESEEN, RequestValidationError, Exception):
        app.add_exception_handler(kind, respond)


def _invalid(request: Request, details: Any) -> dict[str, Any]:
    """Return the problem of invalid parameters, from the list of details that pydantic gives."""
    reasons: dict[str, list[str]] = {}
    for each in details:
        reasons.setdefault(_name(each["loc"]), []).append(str(each["msg"]).removeprefix("Value error, "))
    parameters = [{"name": name, "reason": _joined(said)} for name, said in reasons.items()]
    detail = "; ".join(f"{p['name']}: {p['reason']}" for p in parameters)
    return problem(422, "parameters", detail, request=request, parameters=parameters)


def _joined(reasons: list[str]) -> str:
    """Return in one sentence why none of several alternatives fits."""
    first, *others = dict.fromkeys(reasons)
    return " or ".join([first, *(reason.removeprefix("Input should ") for reason in others)])


def _name(location: tuple[Any, ...]) -> str:
    named = [
        str(part)
        for part in location
        if part not in ("query", "body", "path", "header") and not _ALTERNATIVE.match(str(part))
    ]
    return ".".join(named) or "body"

"""Errors of calls, and readers of answers: as JSON, as a model, or as an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from eigenlens.service.errors import ServiceError

T = TypeVar("T")

# Exit statuses of commands, by the status of an answer.
_EXIT = {404: 3, 401: 4, 403: 4, 429: 5, 503: 5}


class UnreachableError(ServiceError):
    """No service answers at an address."""

    exit_status = 5


class ApiError(ServiceError):
    """The service refused a request; `problem` is the problem document of its answer."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"the service refused ({status}): {problem.get('detail', problem)}")
        self.status, self.problem = status, problem

    @property
    def type(self) -> str:
        """Return the type of the problem, such as /problems/image-not-found."""
        return str(self.problem.get("type", ""))

    @property
    def exit_status(self) -> int:
        """Return the exit status of a command that ends with this error."""
        return _EXIT.get(self.status, 1)


def checked(response: httpx.Response) -> httpx.Response:
    """Return a response, whose body was read, unless it is an error.

    Raises: ApiError; ServiceError, if it does not come from the service.
    """
    if response.status_code < 400:
        return response
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ServiceError(f"{response.url} is not an Eigenlens service: it answered {response.status_code}")
    raise ApiError(response.status_code, body)


def parsed(response: httpx.Response) -> Any:
    """Return the JSON of an answer; None if it is empty. Raises: ServiceError, if it is not JSON."""
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise ServiceError(f"{response.url} is not an Eigenlens service: its answer is no JSON") from None


_adapters: dict[Any, TypeAdapter[Any]] = {}


def parsed_as(kind: type[T], response: httpx.Response) -> T:
    """Return an answer as a model of `service.api` or a list of models. Raises: ServiceError, if it is not one."""
    try:
        adapter = _adapters.get(kind)
        if adapter is None:  # to make an adapter takes longer than a search
            adapter = _adapters[kind] = TypeAdapter(kind)
        answer: T = adapter.validate_json(response.content)
        return answer
    except ValidationError as error:
        raise ServiceError(f"{response.url} is not an Eigenlens service that this client knows: {error}") from error

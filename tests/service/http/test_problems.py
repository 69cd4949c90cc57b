"""Every error of the project has its place in the table of problems, and the unforeseen leaves as a plain 500."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from eigenlens.artifact import EigenlensError
from eigenlens.service.http import problems
from eigenlens.service.http.middleware.request_id import RequestIdMiddleware

# Errors that only commands meet; no request can.
COMMAND_ONLY = {"ConfigError", "SourceError", "TrainingError", "SettingsError", "KeyFileError"}


def all_errors() -> Iterator[type[EigenlensError]]:
    for module in (
        "eigenlens.artifact",
        "eigenlens.index.errors",
        "eigenlens.model.errors",
        "eigenlens.service.errors",
    ):
        for value in vars(importlib.import_module(module)).values():
            if isinstance(value, type) and issubclass(value, EigenlensError) and value is not EigenlensError:
                yield value


def test_every_error_is_in_the_table() -> None:
    listed = {error for error, _, _ in problems.TABLE}
    for error in all_errors():
        nearest = next((cls for cls in error.__mro__ if cls in listed), None)
        assert nearest is not None, f"{error.__name__} has no place in the table"
        status = problems.status_of(error.__new__(error))[0]
        wrong_request = issubclass(error, (ValueError, LookupError)) and error.__name__ not in COMMAND_ONLY
        if wrong_request and error.__name__ not in {"ShapeError", "ModelError"}:
            assert 400 <= status < 500, f"{error.__name__} is the client's doing and gives {status}"


def test_names_are_stable_words_and_used_once() -> None:
    names = [name for _, _, name in problems.TABLE]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and " " not in name for name in names)


@pytest.mark.filterwarnings("ignore")
def test_the_unforeseen_is_a_plain_500_that_tells_nothing() -> None:
    app = FastAPI()
    problems.install(app)
    app.add_middleware(RequestIdMiddleware, log_requests=False)

    @app.get("/fails")
    def fails() -> None:
        raise ZeroDivisionError("a secret")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/fails")

    import anyio

    response = anyio.run(get)
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text
    assert response.json()["type"] == "/problems/unforeseen"

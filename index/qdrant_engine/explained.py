"""What goes wrong between here and a Qdrant, in words: it is not reached, refuses, or is no Qdrant at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from eigenlens.index.errors import EngineUnavailableError, SearchError

# Variable of the environment with the key.
KEY_VARIABLE = "EIGENLENS_BACKEND_API_KEY"


class ConnectionEndedError(EngineUnavailableError):
    """A connection ended before an answer."""


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn errors of the client, and answers that are not Qdrant's, into errors of this package."""
    from pydantic import ValidationError
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    try:
        yield
    except ResponseHandlingException as error:
        if isinstance(error.source, ValidationError):
            raise _other_server_error(address, "an answer of another form") from error
        raise EngineUnavailableError(_not_reached(address, error)) from error
    except (OSError, HTTPException) as error:
        is_ended = isinstance(error, ConnectionError | HTTPException) and not isinstance(error, ConnectionRefusedError)
        raise (ConnectionEndedError if is_ended else EngineUnavailableError)(_not_reached(address, error)) from error
    except ResourceExhaustedResponse as error:
        raise EngineUnavailableError(f"Qdrant at {address} takes no more requests now: {error}") from error
    except UnexpectedResponse as error:
        raise _refusal(address, error.status_code or 500, error.content) from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:  # what reads answers of another form
        raise _other_server_error(address, f"{type(error).__name__}: {error}") from error


def _not_reached(address: str, error: Exception) -> str:
    return f"Qdrant at {address} is not reached ({error}); try again when it runs, or correct the backend's address"


def _refusal(address: str, status: int, content: bytes) -> SearchError:
    """Return the error of an answer with another status than 200."""
    message = _message_of(content)
    said = message or f"status {status} {content[:200].decode('utf-8', 'replace')}".strip()
    if status in (401, 403):
        return EngineUnavailableError(f"Qdrant at {address} refuses the key in {KEY_VARIABLE} ({said})")
    if status == 429:
        return EngineUnavailableError(f"Qdrant at {address} takes no more requests now: {said}")
    if status == 404 and message is not None:
        return EngineUnavailableError(
            f"Qdrant at {address} has not what was asked for ({said}): `eigenlens build` makes it of the same codes"
        )
    if status == 404 or status < 400:
        return _other_server_error(address, said)
    if status >= 500:
        return EngineUnavailableError(f"Qdrant at {address} has no answer ({said}): it is never a part of one")
    return SearchError(f"Qdrant at {address} refuses: {said}")


def _other_server_error(address: str, said: str) -> EngineUnavailableError:
    return EngineUnavailableError(f"{address} does not answer as a Qdrant does ({said}); correct the backend's address")


def _message_of(content: bytes) -> str | None:
    """Return what an answer says of its error; None if it is no answer of Qdrant's."""
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return None

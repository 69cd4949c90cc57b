"""Calls of the service before they are sent: what each sends, whether it may be sent again, what went wrong with it."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import httpx

from eigenlens.artifact import writing_atomic
from eigenlens.service.client.types import SearchOptions
from eigenlens.service.errors import ServiceError

Query = bytes | Path | str | Sequence[float]
OnProgress = Callable[[int, int], None]
URL = "http://127.0.0.1:8080"
ADMIN = "/v1/admin"
# Exit statuses of commands, by the status of an answer.
_EXIT = {404: 3, 401: 4, 403: 4, 429: 5, 503: 5}


def headers_of(key: str | None) -> dict[str, str]:
    """That every call sends."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def nothing(done: int, total: int) -> None:
    """What is told of progress where nobody asks."""


class UnreachableError(ServiceError):
    """No service answers at an address."""

    exit_status = 5


class ApiError(ServiceError):
    """The service refused: `problem` is what it answered."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"the service refused ({status}): {problem.get('detail', problem)}")
        self.status, self.problem = status, problem

    @property
    def type(self) -> str:
        """The kind of problem, such as /problems/image-not-found."""
        return str(self.problem.get("type", ""))

    @property
    def exit_status(self) -> int:
        """For commands."""
        return _EXIT.get(self.status, 1)


@dataclass(frozen=True)
class Call:
    """One request. `repeatable` ones may be sent again though an earlier one may have arrived."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    files: Sequence[tuple[str, tuple[str, bytes]]] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """For httpx."""
        given = {"json": self.json, "files": list(self.files), "data": dict(self.data), "params": dict(self.params)}
        return {name: value for name, value in given.items() if value not in (None, [], {})}


@dataclass(frozen=True)
class Retries:
    """When to try again: after 429 and 503, as the service asks, and where no connection was had.

    Attributes:
        most: tries after the first one.
        most_unreachable: as many of those where nothing answered.
        first_s: the pause after the first, doubled each time, where the service asks for none.
        longest_s: no pause is longer; a service that asks for more is not asked again.
    """

    most: int = 5
    most_unreachable: int = 2
    first_s: float = 0.2
    longest_s: float = 30.0

    def pause(self, call: Call, tried: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds to wait before the next try; None, if there is to be none."""
        if tried >= self.most:
            return None
        backed_off = min(self.longest_s, self.first_s * 2**tried) * random.uniform(0.5, 1.0)
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in (429, 503):
                return None
            asked = _retry_after(outcome.headers.get("retry-after", ""))
            wanted = max(backed_off, asked or 0.0)
            return wanted if wanted <= self.longest_s else None
        sent = not isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        return backed_off if tried < self.most_unreachable and (call.repeatable or not sent) else None


def _retry_after(text: str) -> float | None:
    """Seconds of a Retry-After header, which may also name a time."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def checked(response: httpx.Response) -> httpx.Response:
    """The response, whose body was read, if it is no error. Raises: ApiError; ServiceError, if it is not the API's."""
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
    """The JSON of an answer, None of an empty one. Raises: ServiceError."""
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise ServiceError(f"{response.url} is not an Eigenlens service: its answer is no JSON") from None


def unreachable(url: object, error: Exception) -> UnreachableError:
    """What to tell of a service that does not answer."""
    return UnreachableError(f"no service answers at {url} ({error!r}); start one with `eigenlens serve`")


def image_path(id: str, suffix: str = "") -> str:
    """The path of an image, whose id may hold slashes."""
    return f"/v1/images/{quote(id)}{suffix}"


def search(query: Query, how: SearchOptions) -> Call:
    """A search by an image's bytes or file, by an image's id (str) or by a code."""
    if isinstance(query, Path):
        query = read(query)
    if isinstance(query, bytes):
        text = {name: _as_text(value) for name, value in how.items()}
        return Call("POST", "/v1/search", params=text, files=[("image", ("image", query))])
    return Call("POST", "/v1/search", json={**how, **_named(query)})


def search_batch(queries: Iterable[Query], how: SearchOptions) -> Call:
    """Several searches in one request."""
    searches = []
    for query in queries:
        data = read(query) if isinstance(query, Path) else query
        if isinstance(data, bytes):
            searches.append({"image": base64.b64encode(data).decode()})
        else:
            searches.append(_named(data))
    return Call("POST", "/v1/search/batch", json={**how, "searches": searches})


def add(images: Mapping[str, bytes], metadata: Sequence[Mapping[str, Any]] | None = None) -> Call:
    """Images to add, by their ids, and metadata for each."""
    files = [("image", (id.rpartition("/")[2] or "image", data)) for id, data in images.items()]
    fields: dict[str, Any] = {"id": list(images)}
    if metadata is not None:
        fields["metadata"] = json.dumps(list(metadata))
    return Call("POST", "/v1/images", files=files, data=fields)


def read(path: Path) -> bytes:
    """A file's bytes. Raises: ServiceError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServiceError(f"cannot read {path}: {error.strerror}") from error


def _named(query: str | Sequence[float]) -> dict[str, Any]:
    return {"id": query} if isinstance(query, str) else {"code": [float(x) for x in query]}


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def embed(images: Sequence[bytes], dimensions: int | None) -> Call:
    """Codes of images."""
    uris = [f"data:image/x;base64,{base64.b64encode(image).decode()}" for image in images]
    return Call("POST", "/v1/embeddings", json={"input": uris} | ({"dimensions": dimensions} if dimensions else {}))


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears whole or not at all. Raises: ServiceError, if there is one or none can be had."""
    if path.exists():
        raise ServiceError(f"{path} exists already and is not overwritten; choose another name")
    with ExitStack() as stack:
        try:
            f = stack.enter_context(writing_atomic(path, mode=0o600))
        except OSError as error:
            raise ServiceError(f"cannot write to {path.parent}: {error.strerror}") from error
        yield f


def rebuild(lengths: Sequence[int] | None, kinds: Mapping[int, str] | None, encoder: str | None) -> Call:
    """A rebuild."""
    given = {"lengths": lengths, "kinds": {str(n): kind for n, kind in (kinds or {}).items()}, "encoder": encoder}
    body = {name: value for name, value in given.items() if value}
    return Call("POST", "/v1/admin/rebuild", json=body, repeatable=False)


def event_of(lines: Sequence[str]) -> Any:
    """The data of a server-sent event; None of a comment."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return json.loads("\n".join(data)) if data else None

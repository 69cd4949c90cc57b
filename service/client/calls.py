"""Calls of the service: the request of each, and the rules for sending it again."""

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
from typing import IO, Any, Literal, TypedDict
from urllib.parse import quote

import httpx

from eigenlens.artifact import writing_atomic
from eigenlens.service.api.images import Order
from eigenlens.service.api.search import Include
from eigenlens.service.errors import ServiceError

OnProgress = Callable[[int, int], None]
URL = "http://127.0.0.1:8080"
ADMIN = "/v1/admin"
_PAGE = 200


class NodeQuery(TypedDict, total=False):
    """A node that is searched for: its features, ids of its neighbours in the gallery, or both."""

    features: Sequence[float] | Mapping[str, float]
    neighbours: Sequence[str]


# An image's bytes or file, an image's id, or a code.
Example = bytes | Path | str | Sequence[float]
Query = Example | NodeQuery


class SearchOptions(TypedDict, total=False):
    """Parameters of a search, as keywords; the service chooses those that are left out. See docs/guide/api.md."""

    k: int
    offset: int
    length: int | Literal["auto"]
    target_recall: float
    max_latency_ms: float
    rerank: int | Literal["none", "full"]
    shortlist: int
    effort: int | Literal["max"]
    filter: dict[str, Any]
    min_score: float
    min_similarity: float
    crop: list[float]
    group_duplicates: float
    include: list[Include]


def headers_of(key: str | None) -> dict[str, str]:
    """Return the headers of every call."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def ignore_progress(done: int, total: int) -> None:
    """Ignore progress, for callers that pass no function for it."""


@dataclass(frozen=True)
class Call:
    """One request. A `repeatable` one may be sent again even if the service may have received it before."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    files: Sequence[tuple[str, tuple[str, bytes | IO[bytes]]]] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the keywords of httpx's `request`."""
        arguments = {"json": self.json, "files": list(self.files), "data": dict(self.data), "params": dict(self.params)}
        return {name: value for name, value in arguments.items() if value not in (None, [], {})}


@dataclass(frozen=True)
class Retries:
    """Rules for sending a call again: after 429 and 503, and after a failed connection.

    Attributes:
        max_retries: retries of one call.
        max_unreachable_retries: retries of one call, as long as nothing answers.
        first_pause_s: pause before the first retry; it doubles each time. The service can ask for a longer one.
        max_pause_s: longest pause; if the service asks for a longer one, there is no retry.
    """

    max_retries: int = 5
    max_unreachable_retries: int = 2
    first_pause_s: float = 0.2
    max_pause_s: float = 30.0

    def pause(self, call: Call, tried: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return the seconds to wait before the next try, after `tried` retries; None to give up."""
        if tried >= self.max_retries:
            return None
        backed_off = min(self.max_pause_s, self.first_pause_s * 2**tried) * random.uniform(0.5, 1.0)
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in (429, 503):
                return None
            wait_s = max(backed_off, _retry_after(outcome.headers.get("retry-after", "")) or 0.0)
            return wait_s if wait_s <= self.max_pause_s else None
        may_have_arrived = not isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        may_repeat = call.repeatable or not may_have_arrived
        return backed_off if tried < self.max_unreachable_retries and may_repeat else None


def _retry_after(text: str) -> float | None:
    """Return the seconds of a Retry-After header, which has seconds or a date; None if it has neither."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def image_path(id: str, suffix: str = "") -> str:
    """Return the path of an image, whose id may contain slashes."""
    return f"/v1/images/{quote(id)}{suffix}"


def search(query: Query, options: SearchOptions) -> Call:
    """Make the call that searches by an image's bytes or file, by an image's id (str), by a code or by a node."""
    if isinstance(query, Path):
        query = read(query)
    if isinstance(query, bytes):
        text = {name: _as_text(value) for name, value in options.items()}
        return Call("POST", "/v1/search", params=text, files=[("image", ("image", query))])
    return Call("POST", "/v1/search", json={**options, **_query_member(query)})


def search_batch(queries: Iterable[Query], options: SearchOptions) -> Call:
    """Make the call that runs several searches in one request."""
    searches = [_member(query) for query in queries]
    return Call("POST", "/v1/search/batch", json={**options, "searches": searches})


def search_like(positive: Iterable[Example], negative: Iterable[Example], options: SearchOptions) -> Call:
    """Make the call that searches by examples."""
    examples: dict[str, Any] = {"positive": [_member(example) for example in positive]}
    if unlike := [_member(example) for example in negative]:
        examples["negative"] = unlike
    return Call("POST", "/v1/search", json={**options, **examples})


def add(images: Mapping[str, bytes | IO[bytes]], metadata: Sequence[Mapping[str, Any]] | None = None) -> Call:
    """Make the call that adds images by their ids, with metadata for each."""
    files = [("image", (id.rpartition("/")[2] or "image", data)) for id, data in images.items()]
    fields: dict[str, Any] = {"id": list(images)}
    if metadata is not None:
        fields["metadata"] = json.dumps(list(metadata))
    return Call("POST", "/v1/images", files=files, data=fields)


def read(path: Path) -> bytes:
    """Read a file. Raises: ServiceError, if that fails."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServiceError(f"cannot read {path}: {error.strerror}") from error


def _member(query: Query) -> dict[str, Any]:
    """Return a query as members of a JSON object; an image in base64."""
    data = read(query) if isinstance(query, Path) else query
    return {"image": base64.b64encode(data).decode()} if isinstance(data, bytes) else _query_member(data)


def _query_member(query: str | Sequence[float] | NodeQuery) -> dict[str, Any]:
    if isinstance(query, str):
        return {"id": query}
    return dict(query) if isinstance(query, dict) else {"code": [float(x) for x in query]}


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def embed(images: Sequence[bytes], dimensions: int | None) -> Call:
    """Make the call that encodes images."""
    uris = [f"data:image/x;base64,{base64.b64encode(image).decode()}" for image in images]
    return Call("POST", "/v1/embeddings", json={"input": uris} | ({"dimensions": dimensions} if dimensions else {}))


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file for writing; it appears whole or not at all. Raises: ServiceError, if it exists or that fails."""
    if path.exists():
        raise ServiceError(f"{path} exists already and is not overwritten; choose another name")
    with ExitStack() as stack:
        try:
            f = stack.enter_context(writing_atomic(path, mode=0o600))
        except OSError as error:
            raise ServiceError(f"cannot write to {path.parent}: {error.strerror}") from error
        yield f


def duplicates_after(after: int, exact: bool | None) -> Call:
    """Make the call that lists a page of the groups of duplicates."""
    params: dict[str, Any] = {"after": after} | ({} if exact is None else {"exact": exact})
    return Call("GET", "/v1/duplicates", params=params)


def images_after(
    after: str | None, *, prefix: str = "", contains: str = "", order: Order = "name", limit: int | None = None
) -> Call:
    """Make the call that lists a page of the images, as large as it can be and no larger than `limit`."""
    params: dict[str, Any] = {"prefix": prefix, "contains": contains, "order": order, "after": after}
    given = {name: value for name, value in params.items() if value}
    return Call("GET", "/v1/images", params=given | {"limit": min(_PAGE, limit or _PAGE)})


def rebuild(
    lengths: Sequence[int] | None, kinds: Mapping[int, str] | None, optimise: str | None, encoder: str | None
) -> Call:
    """Make the call that starts a rebuild."""
    members: dict[str, Any] = {"lengths": lengths, "kinds": {str(n): kind for n, kind in (kinds or {}).items()}}
    members |= {"optimise": optimise, "encoder": encoder}
    body = {name: value for name, value in members.items() if value}
    return Call("POST", "/v1/admin/rebuild", json=body, repeatable=False)

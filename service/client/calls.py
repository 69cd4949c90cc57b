"""Calls of the service before they are sent: what each sends, and whether and when it may be sent again."""

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
from eigenlens.service.api.search import Include
from eigenlens.service.errors import ServiceError

Query = bytes | Path | str | Sequence[float]
OnProgress = Callable[[int, int], None]
URL = "http://127.0.0.1:8080"
ADMIN = "/v1/admin"


class SearchOptions(TypedDict, total=False):
    """How to search, as keywords; what is left out is the service's choice. See docs/guide/api.md."""

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
    group_duplicates: float
    include: list[Include]


def headers_of(key: str | None) -> dict[str, str]:
    """Return the headers of every call."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def ignore_progress(done: int, total: int) -> None:
    """Do nothing with progress, where the caller gave no function for it."""


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
        """Return the keywords of httpx's `request`."""
        arguments = {"json": self.json, "files": list(self.files), "data": dict(self.data), "params": dict(self.params)}
        return {name: value for name, value in arguments.items() if value not in (None, [], {})}


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
        """Return the seconds to wait before the next try; None, if there is to be none."""
        if tried >= self.most:
            return None
        backed_off = min(self.longest_s, self.first_s * 2**tried) * random.uniform(0.5, 1.0)
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in (429, 503):
                return None
            wait_s = max(backed_off, _retry_after(outcome.headers.get("retry-after", "")) or 0.0)
            return wait_s if wait_s <= self.longest_s else None
        may_have_arrived = not isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        return backed_off if tried < self.most_unreachable and (call.repeatable or not may_have_arrived) else None


def _retry_after(text: str) -> float | None:
    """Parse a Retry-After header, which may also name a time, into seconds; None if it is neither."""
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
    """Return the path of an image, whose id may hold slashes."""
    return f"/v1/images/{quote(id)}{suffix}"


def search(query: Query, options: SearchOptions) -> Call:
    """Make the call that searches by an image's bytes or file, by an image's id (str) or by a code."""
    if isinstance(query, Path):
        query = read(query)
    if isinstance(query, bytes):
        text = {name: _as_text(value) for name, value in options.items()}
        return Call("POST", "/v1/search", params=text, files=[("image", ("image", query))])
    return Call("POST", "/v1/search", json={**options, **_query_member(query)})


def search_batch(queries: Iterable[Query], options: SearchOptions) -> Call:
    """Make the call that does several searches in one request."""
    searches = []
    for query in queries:
        data = read(query) if isinstance(query, Path) else query
        if isinstance(data, bytes):
            searches.append({"image": base64.b64encode(data).decode()})
        else:
            searches.append(_query_member(data))
    return Call("POST", "/v1/search/batch", json={**options, "searches": searches})


def add(images: Mapping[str, bytes], metadata: Sequence[Mapping[str, Any]] | None = None) -> Call:
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


def _query_member(query: str | Sequence[float]) -> dict[str, Any]:
    return {"id": query} if isinstance(query, str) else {"code": [float(x) for x in query]}


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
    """Open a new file for writing that appears whole or not at all. Raises: ServiceError, if it exists or cannot be."""
    if path.exists():
        raise ServiceError(f"{path} exists already and is not overwritten; choose another name")
    with ExitStack() as stack:
        try:
            f = stack.enter_context(writing_atomic(path, mode=0o600))
        except OSError as error:
            raise ServiceError(f"cannot write to {path.parent}: {error.strerror}") from error
        yield f


def rebuild(lengths: Sequence[int] | None, kinds: Mapping[int, str] | None, encoder: str | None) -> Call:
    """Make the call that starts a rebuild."""
    members = {"lengths": lengths, "kinds": {str(n): kind for n, kind in (kinds or {}).items()}, "encoder": encoder}
    body = {name: value for name, value in members.items() if value}
    return Call("POST", "/v1/admin/rebuild", json=body, repeatable=False)

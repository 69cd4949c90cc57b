"""A Qdrant server, through its own client: collections made, filled, searched and dropped; its errors in words."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from eigenlens.index.errors import EngineUnavailableError, SearchError
from eigenlens.index.qdrant_engine.connections import Connections
from eigenlens.index.qdrant_engine.explained import KEY_VARIABLE, ConnectionEndedError, explained

if TYPE_CHECKING:  # importing it takes a second, and only galleries with this backend need it
    from qdrant_client import QdrantClient

# Variable of the environment with its address.
URL_VARIABLE = "EIGENLENS_BACKEND_URL"
# Collections have metadata since then.
_OLDEST = (1, 16)
_TIMEOUT_S, _BUILD_TIMEOUT_S = 10.0, 600
# Kilobytes of vectors from which a segment gets its graph; 0 is none, while a collection is filled.
_INDEXING_KB = 1
# Kilobytes of vectors that a filter leaves, below of which they are compared one by one.
_FULL_SCAN_KB = 100
_POLL_S = (0.02, 1.0)

Hits = list[tuple[int, float]]


@dataclass(frozen=True)
class VectorForm:
    """How the vectors of one prefix length are kept.

    Attributes:
        length: coordinates.
        has_graph: whether they get an HNSW graph.
        quantised: whether searches of the graph read copies of one byte a coordinate, which stay in memory.
    """

    length: int
    has_graph: bool
    quantised: bool


@dataclass(frozen=True)
class CollectionState:
    """What a collection tells of itself: its points, its metadata and the payload fields that have an index."""

    count: int
    metadata: Mapping[str, Any]
    indexed_fields: frozenset[str]


def server_at(url: str | None, api_key: str | None = None) -> QdrantServer | None:
    """Return the server at an address; None without one."""
    return QdrantServer(url, api_key=api_key or None) if url else None


class QdrantServer:
    """A connection to a server, or to any node of a cluster, for several threads.

    server = QdrantServer("http://qdrant.example:6333", api_key=key)

    Attributes:
        engine_s: seconds that the server says its answers to all searches so far took.
    """

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        """Name a server; the first call connects. Raises: SearchError, for what is no address or no key."""
        host, port = _host_and_port(url)
        if not (api_key or "").isascii() or not (api_key or "a").isprintable():
            raise SearchError(f"the key in {KEY_VARIABLE} has characters that no key of Qdrant has; correct it")
        self.url, self.api_key = url, api_key
        self._headers = {"Content-Type": "application/json"} | ({"api-key": api_key} if api_key else {})
        self.engine_s = 0.0
        self.is_local = host in ("localhost", "127.0.0.1", "::1")
        self.address = f"{host}:{port}" if port else host

    @cached_property
    def _client(self) -> QdrantClient:
        """A client for questions, which are answered soon."""
        client = self._connect(_TIMEOUT_S)
        with self._explained():
            version = client.info().version
            is_old = tuple(map(int, version.split("-")[0].split(".")[:2])) < _OLDEST
        if is_old:
            raise EngineUnavailableError(
                f"Qdrant at {self.address} is version {version}; {'.'.join(map(str, _OLDEST))} or newer is needed"
            )
        return client

    @cached_property
    def _builder(self) -> QdrantClient:
        """A client for what a build asks for, which may take long; a server that answers nothing is told soon."""
        self.version()
        return self._connect(_BUILD_TIMEOUT_S)

    def _connect(self, timeout_s: float) -> QdrantClient:
        from qdrant_client import QdrantClient

        with self._explained():
            return QdrantClient(
                url=self.url,
                api_key=self.api_key,
                port=_host_and_port(self.url)[1] or 6333,
                timeout=int(timeout_s),
                check_compatibility=False,
            )

    @cached_property
    def _connections(self) -> Connections:
        """Connections for what is sent often; the client's own calls check each number of each vector for long."""
        return Connections(self._client.http.client.host)

    def close(self) -> None:
        """Close the connections."""
        for client in ("_client", "_builder", "_connections"):
            if client in self.__dict__:
                getattr(self, client).close()

    def version(self) -> str:
        """Return the version of the server. Raises: EngineUnavailableError."""
        with self._explained():
            return str(self._client.info().version)

    def names(self) -> list[str]:
        """Return the names of all collections."""
        with self._explained():
            return [collection.name for collection in self._client.get_collections().collections]

    def state(self, name: str) -> CollectionState | None:
        """Return what a collection tells of itself; None if there is none."""
        with self._explained():
            if not self._client.collection_exists(name):
                return None
            info = self._client.get_collection(name)
        return CollectionState(info.points_count or 0, info.config.metadata or {}, frozenset(info.payload_schema))

    def create(self, name: str, forms: Sequence[VectorForm], fields: Mapping[str, str]) -> None:
        """Make an empty collection anew, with an index of each payload field, before there are data.

        A graph that is built before them leads nowhere where a filter leaves a tenth of the points: a recall of 0.85
        in place of 1.

        Args:
            fields: kind of the values of each payload field: "text", "number" or "boolean".
        """
        from qdrant_client import models

        schemas = {
            "text": models.PayloadSchemaType.KEYWORD,
            "number": models.PayloadSchemaType.FLOAT,
            "boolean": models.PayloadSchemaType.BOOL,
        }
        copies = models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        )
        vectors = {
            str(form.length): models.VectorParams(
                size=form.length,
                distance=models.Distance.COSINE,
                datatype=models.Datatype.FLOAT16,
                on_disk=form.quantised or not form.has_graph,
                hnsw_config=models.HnswConfigDiff(m=16 if form.has_graph else 0, full_scan_threshold=_FULL_SCAN_KB),
                quantization_config=copies if form.quantised else None,
            )
            for form in forms
        }
        self.drop(name)
        with self._explained():
            self._builder.create_collection(
                name,
                vectors_config=vectors,
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=0),
                on_disk_payload=True,
            )
            for field, kind in fields.items():
                self._builder.create_payload_index(name, field, schemas[kind], wait=True)

    def upsert(self, name: str, points: Sequence[Mapping[str, Any]]) -> None:
        """Store points, each with its id, vectors and payload."""
        body = json.dumps({"points": points}).encode()
        self._send("PUT", name, "points?wait=true", body, timeout_s=_BUILD_TIMEOUT_S)

    def index(self, name: str) -> None:
        """Build the graphs of what was stored, and wait for them."""
        from qdrant_client import models

        with self._explained():
            self._builder.update_collection(
                name, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=_INDEXING_KB)
            )
            # A server that has not begun yet tells that it is done.
            pause_s, greens = _POLL_S[0], 0
            while greens < 2:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _POLL_S[1])
                info = self._builder.get_collection(name)
                problem = getattr(info.optimizer_status, "error", None)
                if problem is not None:
                    raise SearchError(f"Qdrant at {self.address} cannot index {name}: {problem}")
                greens = greens + 1 if info.status == models.CollectionStatus.GREEN else 0

    def describe(self, name: str, metadata: Mapping[str, Any]) -> None:
        """Write what `state` tells."""
        with self._explained():
            self._builder.update_collection(name, metadata=dict(metadata))

    def query(self, name: str, searches: Sequence[str]) -> list[Hits]:
        """Return ids and scores of each search's hits, best first, as Qdrant orders them.

        Args:
            searches: JSON of each.

        Raises: EngineUnavailableError, also if a shard has no replica that answers: never a part of the results.
        """
        body = f'{{"searches":[{",".join(searches)}]}}'.encode()
        try:
            answer = self._send("POST", name, "points/query/batch", body, timeout_s=_TIMEOUT_S)
        except ConnectionEndedError:  # one that was kept, perhaps, as the server was started anew
            answer = self._send("POST", name, "points/query/batch", body, timeout_s=_TIMEOUT_S)
        with self._explained():
            self.engine_s += answer["time"]
            return [
                [(int(point["id"]), float(point["score"])) for point in result["points"]]
                for result, _ in zip(answer["result"], searches, strict=True)
            ]

    def drop(self, name: str) -> None:
        """Remove a collection, if there is one."""
        with self._explained():
            self._builder.delete_collection(name)

    def _send(self, method: str, name: str, path: str, body: bytes, *, timeout_s: float) -> Any:
        """Send JSON, and return the whole answer."""
        with self._explained():
            path = f"/collections/{quote(name, safe='')}/{path}"
            answer, content = self._connections.send(method, path, body, self._headers, timeout_s=timeout_s)
            if answer.status != 200:
                from httpx import Headers
                from qdrant_client.http.exceptions import UnexpectedResponse

                raise UnexpectedResponse(answer.status, answer.reason, content, Headers(answer.getheaders()))
            return json.loads(content)

    def _explained(self) -> AbstractContextManager[None]:
        return explained(self.address)


def _host_and_port(url: str) -> tuple[str, int | None]:
    """Return the parts of an address. Raises: SearchError, if it is none."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and not any(map(str.isspace, url)):
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise SearchError(f"'{url}' is no address of a Qdrant; give one such as http://qdrant.example:6333")

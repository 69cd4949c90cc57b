"""A double of Qdrant's HTTP server over its real engine, qdrant-edge-py: the calls that the backend uses, no more.

Each collection has one shard of the engine or several, whose results are merged as a cluster merges them. The client,
HTTP, segments, graphs, quantisation, payload indexes and conditions are real. What a server does in the background,
consensus, replication and transfers of shards are not.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

_SCHEMAS = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
}
# The engine indexes with Python's lock: more points than these in a process of its own, and no answer waits for it.
_FEW_POINTS = 20_000
_DATATYPES = {
    "float16": edge.VectorStorageDatatype.Float16,
    "float32": edge.VectorStorageDatatype.Float32,
}


class _Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class _Collection:
    """A collection: its shards, and what its configuration says."""

    shards: list[edge.EdgeShard]
    paths: list[str]
    config: edge.EdgeConfig
    params: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    indexing_threshold: int = 0
    is_indexed: bool = True
    indexing: Future[None] | None = None
    lost: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def alive(self) -> list[edge.EdgeShard]:
        """All shards; a search that misses one is refused, in the words of a server."""
        if self.lost:
            shard = min(self.lost)
            raise _Refusal(
                500,
                f"Service internal error: The replica set for shard {shard} on peer 155660223948008 does not have "
                "enough active replicas",
            )
        return self.shards


class QdrantDouble:
    """Answers on a free port of this machine until it is closed.

    Attributes:
        url: its address.
        makes_payload_indexes: off to forget them, as a build would that makes none.
        key: that requests have to have, if any.
        requests: method and path of all so far.
    """

    def __init__(self, folder: Path, *, shards: int = 1) -> None:
        """Keep collections in a folder, each of them in so many shards."""
        self._folder, self._shards = folder, shards
        self._collections: dict[str, _Collection] = {}
        self._made = 0
        self.makes_payload_indexes = True
        self.key: str | None = None
        self.requests: list[str] = []
        self.is_closed = False
        self._indexers: ProcessPoolExecutor | None = None
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End the server and its collections."""
        self.is_closed = True
        self._server.shutdown()
        self._server.server_close()
        if self._indexers is not None:
            self._indexers.shutdown()
        for name in list(self._collections):
            self._drop(name)

    def forget_payload_indexes(self, name: str) -> None:
        """Tell no more of the indexes of a collection's payload."""
        self._collections[name].fields.clear()

    def lose_shard(self, name: str, shard: int) -> None:
        """Take a shard away, of which there is no replica."""
        self._collections[name].lost.add(shard)

    def restore_shards(self, name: str) -> None:
        """Bring all shards back."""
        self._collections[name].lost.clear()

    def bytes_of(self, name: str) -> dict[str, int]:
        """The bytes of a collection's files by their kind, as the engine names them."""
        sizes: dict[str, int] = {}
        for shard in self._collections[name].shards:
            shard.flush()
        for path in self._path(name).rglob("*"):
            if path.is_file():
                part = next((part for part in path.parts if part.startswith(("vector_", "payload"))), path.name)
                kind = f"{part}/{path.name}" if part.startswith("vector_") else part
                sizes[kind] = sizes.get(kind, 0) + path.stat().st_blocks * 512
        return sizes

    def answer(self, method: str, path: str, body: Any, key: str | None) -> tuple[Any, float]:
        """Return the result of a request, and the seconds that the engine took to search. Raises: _Refusal."""
        self.requests.append(f"{method} {path}")
        if self.key is not None and key != self.key:
            raise _Refusal(401, "Must provide an API key or an Authorization bearer token")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if method == "POST" and parts[2:] == ["points", "query", "batch"]:
            searches = models.QueryRequestBatch.model_validate(body).searches
            answers = [_query(self._open(parts[1]), search) for search in searches]
            return [answer for answer, _ in answers], sum(seconds for _, seconds in answers)
        return self._result(method, parts, body), 0.0

    def _result(self, method: str, parts: Sequence[str], body: Any) -> Any:
        match [method, *parts]:
            case ["GET", ""]:
                return {"title": "qdrant - vector search engine", "version": "1.16.0", "commit": "0"}
            case ["GET", "collections"]:
                return {"collections": [{"name": name} for name in self._collections]}
            case ["GET", "collections", name, "exists"]:
                return {"exists": name in self._collections}
            case ["PUT", "collections", name]:
                return self._create(name, models.CreateCollection.model_validate(body))
            case ["DELETE", "collections", name]:
                return self._drop(name)
            case ["GET", "collections", name]:
                return self._info(self._open(name))
            case ["PATCH", "collections", name]:
                return self._update(self._open(name), models.UpdateCollection.model_validate(body))
            case ["PUT", "collections", name, "index"]:
                return self._index_field(self._open(name), body)
            case ["PUT", "collections", name, "points"]:
                # One point tells whether the form is Qdrant's: all are made alike, and to check each takes long.
                models.PointsList.model_validate(body | {"points": body["points"][:1]})
                return self._upsert(self._open(name), body["points"])
        raise _Refusal(404, f"the double has no {method} /{'/'.join(parts)}")

    def _open(self, name: str) -> _Collection:
        if name not in self._collections:
            raise _Refusal(404, f"Not found: Collection `{name}` doesn't exist!")
        return self._collections[name]

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _create(self, name: str, request: models.CreateCollection) -> bool:
        assert isinstance(request.vectors, dict)
        assert request.optimizers_config is not None
        if name in self._collections:
            raise _Refusal(409, f"Wrong input: Collection `{name}` already exists!")
        vectors = {name: _vector_params(params) for name, params in request.vectors.items()}
        optimizers = edge.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1)
        config = edge.EdgeConfig(vectors=vectors, optimizers=optimizers, max_search_threads=1, wal_enabled=False)
        paths = [str(self._path(name) / str(number)) for number in range(self._shards)]
        for path in paths:
            Path(path).mkdir(parents=True)
        self._collections[name] = _Collection(
            [edge.EdgeShard.create(path, config) for path in paths],
            paths,
            config,
            {"vectors": {name: params.model_dump(exclude_none=True) for name, params in request.vectors.items()}},
            indexing_threshold=request.optimizers_config.indexing_threshold or 0,
        )
        return True

    def _drop(self, name: str) -> bool:
        collection = self._collections.pop(name, None)
        if collection is None:
            return False
        if collection.indexing is not None:
            wait([collection.indexing])
        else:
            for shard in collection.shards:
                shard.close()
        shutil.rmtree(self._path(name), ignore_errors=True)
        return True

    def _info(self, collection: _Collection) -> dict[str, Any]:
        """Tell of a collection, after what a server does in the background."""
        with collection.lock:
            is_indexed = self._index(collection)
        infos = [shard.info() for shard in collection.shards] if is_indexed else []
        return {
            "status": "green" if is_indexed else "yellow",
            "optimizer_status": "ok",
            "points_count": sum(info.points_count for info in infos),
            "indexed_vectors_count": sum(info.indexed_vectors_count for info in infos),
            "segments_count": sum(info.segments_count for info in infos),
            "config": {
                "params": collection.params,
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {
                    "deleted_threshold": 0.2,
                    "vacuum_min_vector_number": 1000,
                    "default_segment_number": 1,
                    "flush_interval_sec": 5,
                },
                "metadata": collection.metadata,
            },
            "payload_schema": {name: {"data_type": kind, "points": 0} for name, kind in collection.fields.items()},
        }

    def _index(self, collection: _Collection) -> bool:
        """Index what is stored, as far as it is to be. Returns: whether that is done."""
        if not collection.indexing_threshold or collection.is_indexed:
            return True
        if collection.indexing is None and sum(s.info().points_count for s in collection.shards) <= _FEW_POINTS:
            for shard in collection.shards:
                shard.optimize()
        elif collection.indexing is None:
            for shard in collection.shards:
                shard.flush()
                shard.close()
            self._indexers = self._indexers or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            collection.indexing = self._indexers.submit(_optimize, collection.paths)
            return False
        elif not collection.indexing.done():
            return False
        else:
            collection.indexing.result()
            collection.indexing = None
            collection.shards = [edge.EdgeShard.load(path, collection.config) for path in collection.paths]
        collection.is_indexed = True
        return True

    def _update(self, collection: _Collection, request: models.UpdateCollection) -> bool:
        if request.optimizers_config is not None:
            collection.indexing_threshold = request.optimizers_config.indexing_threshold or 0
        collection.metadata |= request.metadata or {}
        return True

    def _index_field(self, collection: _Collection, body: Mapping[str, str]) -> dict[str, Any]:
        name, kind = body["field_name"], body["field_schema"]
        collection.fields[name] = kind
        if self.makes_payload_indexes:
            for shard in collection.shards:
                shard.update(edge.UpdateOperation.create_field_index(name, _SCHEMAS[kind]))
        return {"operation_id": 0, "status": "completed"}

    def _upsert(self, collection: _Collection, stored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for number, shard in enumerate(collection.shards):
            points = [
                edge.Point(point["id"], point["vector"], point.get("payload"))
                for point in stored
                if point["id"] % len(collection.shards) == number
            ]
            if points:
                shard.update(edge.UpdateOperation.upsert_points(points))
        collection.is_indexed = False
        return {"operation_id": 0, "status": "completed"}


def _optimize(paths: Sequence[str]) -> None:
    for path in paths:
        shard = edge.EdgeShard.load(path)
        shard.optimize()
        shard.close()


def _vector_params(params: models.VectorParams) -> edge.EdgeVectorParams:
    assert params.distance == models.Distance.COSINE
    assert params.datatype is not None
    graph, copies = params.hnsw_config, None
    assert graph is not None
    assert graph.m is not None
    assert graph.full_scan_threshold is not None
    if params.quantization_config is not None:
        assert isinstance(params.quantization_config, models.ScalarQuantization)
        quantile = params.quantization_config.scalar.quantile
        copies = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=quantile, always_ram=True)
    return edge.EdgeVectorParams(
        params.size,
        edge.Distance.Cosine,
        datatype=_DATATYPES[params.datatype],
        on_disk=params.on_disk,
        hnsw_config=edge.HnswIndexConfig(graph.m, 100, graph.full_scan_threshold, max_indexing_threads=1),
        quantization_config=copies,
    )


def _nearest(search: models.QueryRequest | models.Prefetch) -> edge.Query:
    query: Any = search.query
    return edge.Query.Nearest(query, using=search.using)


def _query(collection: _Collection, request: models.QueryRequest) -> tuple[dict[str, Any], float]:
    """Search every shard, and merge what they find, best first. Returns: that, and the seconds that shards took."""
    assert request.limit is not None
    search = edge.QueryRequest(
        limit=request.limit,
        query=_nearest(request),
        prefetches=[_prefetch(request.prefetch)] if isinstance(request.prefetch, models.Prefetch) else None,
        filter=_filter(request.filter),
        params=_params(request.params),
        with_payload=False,
        with_vector=False,
    )
    begun = time.perf_counter()
    hits = [hit for shard in collection.alive() for hit in shard.query(search)]
    seconds = time.perf_counter() - begun
    if len(collection.shards) > 1:
        hits = sorted(hits, key=lambda hit: -hit.score)[: request.limit]
    return {"points": [{"id": hit.id, "version": 0, "score": hit.score} for hit in hits]}, seconds


def _prefetch(prefetch: models.Prefetch) -> edge.Prefetch:
    assert prefetch.limit is not None
    return edge.Prefetch(
        limit=prefetch.limit,
        query=_nearest(prefetch),
        filter=_filter(prefetch.filter),
        params=_params(prefetch.params),
    )


def _params(params: models.SearchParams | None) -> edge.SearchParams | None:
    if params is None:
        return None
    copies = params.quantization
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef,
        exact=bool(params.exact),
        quantization=None if copies is None else edge.QuantizationSearchParams(rescore=copies.rescore),
    )


def _filter(filter: models.Filter | None) -> edge.Filter | None:
    if filter is None:
        return None
    return edge.Filter(_conditions(filter.must), _conditions(filter.should), _conditions(filter.must_not))


def _conditions(part: Any) -> list[Any] | None:
    return None if part is None else [_condition(condition) for condition in part]


def _condition(condition: Any) -> Any:
    match condition:
        case models.Filter():
            return _filter(condition)
        case models.HasIdCondition():
            return edge.HasIdCondition(set(condition.has_id))
        case models.IsEmptyCondition():
            return edge.IsEmptyCondition(condition.is_empty.key)
        case models.FieldCondition(match=models.MatchValue() as match):
            # The engine takes Python's booleans for the numbers 0 and 1, which they are.
            value: Any = np.bool_(match.value) if isinstance(match.value, bool) else match.value
            return edge.FieldCondition(condition.key, match=edge.MatchValue(value))
        case models.FieldCondition(match=models.MatchAny() as values):
            return edge.FieldCondition(condition.key, match=edge.MatchAny(values.any))
        case models.FieldCondition(range=models.Range() as ends):
            return edge.FieldCondition(condition.key, range=edge.RangeFloat(ends.gte, ends.gt, ends.lte, ends.lt))
    raise _Refusal(400, f"the double has no condition {condition!r}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, double: QdrantDouble) -> None:
        class Handler(_Handler):
            pass

        Handler.double = double
        super().__init__(("127.0.0.1", 0), Handler)


class _Handler(BaseHTTPRequestHandler):
    """Reads requests and writes answers, in the envelope of Qdrant."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    raw_requestline: bytes
    double: QdrantDouble

    def parse_request(self) -> bool:
        """Read the head of a request: the library parses it as the head of an e-mail, in a tenth of a millisecond."""
        self.command, self.path, self.request_version = self.raw_requestline.decode().split()
        self.headers = Message()
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            self.headers[name] = value.strip()
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        return True

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        if self.double.is_closed:  # on a connection that was kept
            self.close_connection = True
            return
        status = 200
        answer: Any
        try:
            result, seconds = self.double.answer(
                self.command, path, json.loads(body) if body else None, self.headers.get("api-key")
            )
            answer = result if path == "/" else {"result": result, "status": "ok", "time": seconds}
        except _Refusal as refusal:
            status, answer = refusal.status, {"status": {"error": str(refusal)}, "time": 0.0}
        except Exception as error:
            status, answer = 500, {"status": {"error": f"the double: {error!r}"}, "time": 0.0}
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        self.wfile.write(head.encode() + data)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def main() -> None:
    """Run until the process is ended: python -m tests.support.qdrant_double."""
    with contextlib.suppress(KeyboardInterrupt), running_double() as double:
        print(double.url, flush=True)
        threading.Event().wait()


@contextlib.contextmanager
def running_double(*, shards: int = 1) -> Iterator[QdrantDouble]:
    """A running double, with collections of so many shards."""
    memory = Path("/dev/shm")  # the engine waits for its files to be on the disk
    with tempfile.TemporaryDirectory(prefix="eigenlens-qdrant-", dir=memory if memory.is_dir() else None) as folder:
        double = QdrantDouble(Path(folder), shards=shards)
        try:
            yield double
        finally:
            double.close()


if __name__ == "__main__":
    main()

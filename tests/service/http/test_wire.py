"""What clients and proxies do on the wire: offers of other protocols, bodies that never come, HEAD, codings, paths."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import eigenlens
from eigenlens.service.errors import BodyMissingError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.http.bodies import decode_base64
from eigenlens.service.http.middleware import compression
from eigenlens.service.http.middleware.body_limit import BodyLimit
from eigenlens.service.http.middleware.compression import decoding
from tests.support.service import client_fixture, gallery_fixture, image_id, pixels_of, png, serving, settings_of

gallery = gallery_fixture(count=10)
below = client_fixture(
    name="below", admin=True, root_path="photos/", trusted_proxies="127.0.0.1", rate_limit=0.001, rate_burst=20
)
client = client_fixture(admin=True, max_image_bytes=100_000)

# Java's HttpClient sends these with every request.
H2C = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
}


def search_bytes(body: bytes) -> bytes:
    lines = ["POST /v1/search?k=3 HTTP/1.1", "Host: x", "Content-Type: application/octet-stream"]
    lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in H2C.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("pieces", [1, 7], ids=["at once", "in pieces"])
def test_an_offer_of_http_2_does_not_cost_the_body(client: httpx.Client, pieces: int) -> None:
    request = search_bytes(png(pixels_of(4))) + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        size = -(-len(request) // pieces)
        for start in range(0, len(request), size):
            connection.sendall(request[start : start + size])
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert image_id(4).encode() in answer
    assert answer.endswith(b'{"status":"ok"}'), "the next request on the connection is answered too"


def test_an_offer_of_http_2_without_a_body_is_answered(client: httpx.Client) -> None:
    assert client.get("/v1/lengths", headers=H2C).status_code == 200
    refused = client.post("/v1/admin/rebuild", headers=H2C, json={"lengths": [999]})
    assert refused.status_code == 422, "the body was read"


def test_empty_lines_before_a_request_are_skipped(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.sendall(b"\r\n")
        time.sleep(0.1)
        connection.sendall(b"\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("head", "status", "problem"),
    [
        (b"GET /v1/images?contains=%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 100_000), 400, "address-too-long"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nCookie: %s" % (b"x" * 300_000), 431, "headers-too-large"),
        (b"this is no request\r\n\r\n", 400, "malformed-request"),
        (b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed-request"),
    ],
)
def test_what_reaches_no_route_is_a_problem_too(client: httpx.Client, head: bytes, status: int, problem: str) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.sendall(head)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    lines, _, body = answer.partition(b"\r\n\r\n")
    assert lines.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/problem+json" in lines
    assert json.loads(body)["type"] == f"/problems/{problem}"


@pytest.mark.parametrize("header", [(b"content-length", b"12"), (b"transfer-encoding", b"chunked")])
def test_an_announced_body_that_does_not_come_is_an_error(header: tuple[bytes, bytes]) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def read(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    limited = BodyLimit(read, max_bytes=100, max_batch_bytes=100, timeout_s=1)
    scope = {"type": "http", "path": "/v1/admin/rebuild", "headers": [header]}
    with pytest.raises(BodyMissingError, match="announces a body"):
        asyncio.run(limited(scope, receive, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["/healthz", "/livez", "/readyz", "/metrics", "/v1/lengths", "/v1/admin/jobs", "/", "/openapi.json",
             f"/v1/images/{image_id(2)}", f"/v1/images/{image_id(2)}/content", f"/v1/images/{image_id(2)}/thumbnail"]
)  # fmt: skip
def test_head_answers_as_get_does_without_a_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    changing = {"date", "x-request-id", "content-length" if path == "/metrics" else ""}
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in got.headers.items() if k not in changing
    }
    assert client.head("/v1/images/none").status_code == 404
    assert 'method="HEAD",route="/v1/lengths"' in client.get("/metrics").text or path < "/v1/lengths"


def test_slashes_at_the_end_of_a_path_change_nothing(client: httpx.Client) -> None:
    assert client.get("/v1/lengths/").json() == client.get("/v1/lengths").json()
    assert client.get(f"/v1/images/{image_id(2)}/").json()["id"] == image_id(2)
    assert client.post("/v1/search/", files={"image": png(pixels_of(4))}).status_code == 200
    assert client.get("/healthz//").status_code == 200


def test_a_part_of_a_picture(client: httpx.Client) -> None:
    path, data = f"/v1/images/{image_id(2)}/content", png(pixels_of(2))

    def get(range: str, **more: str) -> httpx.Response:
        return client.get(path, headers={"Range": range, **more})

    part = get("bytes=2-5")
    assert (part.status_code, part.content) == (206, data[2:6])
    assert part.headers["content-range"] == f"bytes 2-5/{len(data)}"
    assert get("bytes=10-").content == data[10:]
    assert get("bytes=-7").content == data[-7:]
    assert get("bytes=0-99999").content == data
    beyond = get("bytes=99999-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
    assert beyond.json()["type"] == "/problems/range"
    for whole in (get("bytes=0-1,3-4"), get("lines=1-2"), get("bytes=1-2", **{"If-Range": '"another"'})):
        assert (whole.status_code, whole.content) == (200, data)
    assert get("bytes=1-2", **{"If-Range": part.headers["etag"]}).status_code == 206
    endless = "9" * 5000
    for whole in (get(f"bytes={endless}-"), get(f"bytes=0-{endless}"), get(f"bytes=-{endless}")):
        assert (whole.status_code, whole.content) == (200, data)
    for range in ("bytes=2-5", "bytes=99999-"):  # RFC 9110, 14.2: of GET alone
        head = client.head(path, headers={"Range": range})
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))


def test_long_answers_are_compressed_for_those_who_take_it(client: httpx.Client) -> None:
    path = "/openapi.json"
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    packed = client.get(path, headers={"Accept-Encoding": "br, gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 4
    assert "accept-encoding" in plain.headers["vary"].lower()
    refused = client.get(path, headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers
    style = client.get("/style.css", headers={"Accept-Encoding": "gzip"})
    assert client.get("/style.css", headers={"If-None-Match": style.headers["etag"]}).status_code == 304


def test_a_compressed_request_is_read_within_bounds(client: httpx.Client) -> None:
    def post(body: bytes, coding: str = "gzip") -> httpx.Response:
        headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
        return client.post("/v1/search", content=body, headers=headers)

    search = json.dumps({"id": image_id(2), "k": 3}).encode()
    assert len(post(gzip.compress(search)).json()["results"]) == 3
    assert post(gzip.compress(search[:9]) + gzip.compress(search[9:])).status_code == 200, "joined files"
    bomb = post(gzip.compress(b" " * 300_000_000, 9))
    assert (bomb.status_code, bomb.json()["type"]) == (413, "/problems/too-many-bytes")
    for damaged in (post(gzip.compress(search)[:-9]), post(b"no gzip"), post(search, "br")):
        assert (damaged.status_code, damaged.json()["type"]) == (415, "/problems/content-coding")
        assert damaged.headers["accept-encoding"] == "gzip"


def test_after_a_compressed_body_the_client_is_seen_to_leave() -> None:
    left: dict[str, Any] = {"type": "http.disconnect"}
    messages = [{"type": "http.request", "body": gzip.compress(b"body"), "more_body": False}, left]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def read() -> list[Any]:
        receive_decoded = decoding({"headers": [(b"content-encoding", b"gzip")]}, receive, max_bytes=100)
        return [await receive_decoded(), await receive_decoded()]

    assert asyncio.run(read()) == [{"type": "http.request", "body": b"body", "more_body": False}, left]


@pytest.mark.parametrize(("size", "in_a_thread"), [(200 * 1024, False), (300 * 1024, True)])
def test_long_answers_are_compressed_beside_the_event_loop(
    size: int, in_a_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, sent = [], []

    def compress(body: bytes, level: int, *, mtime: int) -> bytes:
        threads.append(threading.current_thread())
        return gzip.compress(body, level, mtime=mtime)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"x" * size})

    async def send(message: Any) -> None:
        sent.append(message)

    monkeypatch.setattr(compression, "compress", compress)
    scope = {"type": "http", "headers": [(b"accept-encoding", b"gzip")]}
    asyncio.run(compression.GzipAnswers(answer)(scope, None, send))  # type: ignore[arg-type]
    assert (threads[0] is not threading.current_thread()) == in_a_thread
    assert gzip.decompress(sent[1]["body"]) == b"x" * size


@pytest.mark.parametrize("data", [b"", b"a", b"\xfb\xff\xfe" * 60, b"ab"])
def test_base64_as_its_writers_differ(data: bytes) -> None:
    for text in (base64.b64encode(data), base64.encodebytes(data), base64.urlsafe_b64encode(data)):
        assert decode_base64(text.decode()) == decode_base64(text.decode().rstrip("=\n")) == data


def test_below_a_path_of_a_proxy_the_page_and_all_addresses_lead_back(below: httpx.Client) -> None:
    def get(path: str) -> httpx.Response:
        return below.get(path, headers={"X-Forwarded-For": path})

    results = below.post("/photos/v1/search?k=2", files={"image": png(pixels_of(4))}).json()["results"]
    listed = get("/v1/images?limit=1").json()["images"]  # of a proxy that strips the path
    for image in (*results, *listed, get(f"/photos/v1/images/{image_id(3).replace(' ', '%20')}").json()):
        assert image["content"].startswith("/photos/v1/images/")
        assert get(image["content"]).status_code == get(image["thumbnail"]).status_code == 200
    assert below.get("/photos").headers["location"] == "/photos/"
    assert below.get("/photos/docs/").headers["location"] == below.get("/docs/").headers["location"] == "/photos/docs"
    assert get("/photos/app.js").status_code == 200
    assert get("/openapi.json").json()["servers"] == [{"url": "/photos"}]
    page = Path(__file__).parents[3] / "service" / "page"
    text = (page / "index.html").read_text() + "".join(f.read_text() for f in page.rglob("*.js"))
    assert not re.findall(r"""(?:fetch\(|src=|href=|from )["'`]/.*""", text), "addresses are relative to the page"


def test_only_trusted_proxies_tell_who_the_client_is(gallery: Gallery) -> None:
    for trusted, statuses in (("10.0.0.0/8", [200, 429]), ("10.0.0.0/8, 127.0.0.1", [200, 200])):
        with serving(settings_of(gallery, rate_limit=0.001, rate_burst=1, trusted_proxies=trusted)) as client:
            answers = [client.get("/v1/lengths", headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in (1, 2)]
            assert [answer.status_code for answer in answers] == statuses


def test_https_with_a_certificate_of_ones_own(gallery: Gallery, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    make += ["-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    with serving(settings_of(gallery, tls_certificate=certificate, tls_key=key)) as client:
        assert client.base_url.scheme == "https"
        assert client.get("/v1/lengths").status_code == 200


def test_the_document_is_shown_by_the_service_itself(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["info"]["version"] == eigenlens.__version__
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    known = {tag["name"] for tag in document["tags"]}
    for operation in operations:
        assert set(operation["tags"]) <= known
        assert operation["summary"] != operation["operationId"].replace("_", " ").title(), "a sentence, not a name"
        assert operation["summary"][-1] not in ".;:"
    for path in ("/docs", "/redoc", "/docs/", "/redoc/"):
        page = client.get(path, follow_redirects=True)
        assert page.status_code == 200
        assert "reference.js" in page.text
        assert "//" not in page.text.replace("<!doctype", ""), "no other host is asked"
        script = client.get(page.url.join("reference.js"))
        assert script.status_code == 200
        assert "javascript" in script.headers["content-type"]

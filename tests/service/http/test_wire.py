"""What clients and proxies do on the wire: offers of other protocols, bodies that never come, HEAD, codings, paths."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

from eigenlens.service.errors import BodyMissingError
from eigenlens.service.http.middleware.body_limit import BodyLimit
from tests.support.service import client_fixture, gallery_fixture, image_id, pixels_of, png

gallery = gallery_fixture(count=10)
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

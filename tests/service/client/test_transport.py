"""Addresses, proxies and certificates of the environment: what cannot work is told in a sentence."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from eigenlens.service.client import AsyncClient, Client
from eigenlens.service.client.transport import is_loopback
from eigenlens.service.errors import ServiceError
from tests.support.service import client_fixture, gallery_fixture

gallery = gallery_fixture(count=4)
service = client_fixture(name="service")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:9"), ("http_proxy", "http://127.0.0.1:9"), ("SSL_CERT_FILE", "/none.pem")],
)
def test_this_machine_is_reached_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, service: httpx.Client, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with Client(str(service.base_url)) as client:
        assert client.lengths().count == 4

    async def ask() -> int:
        async with AsyncClient(str(service.base_url)) as client:
            return (await client.lengths()).count

    assert asyncio.run(ask()) == 4


@pytest.mark.parametrize(
    ("name", "value", "url", "says"),
    [
        ("ALL_PROXY", "socks5://me:secret@127.0.0.1:9", "http://photos.example", r"httpx\[socks\].*NO_PROXY=photos"),
        ("http_proxy", "http://127.0.0.1:9", "http://photos.example", "through the proxy http://127.0.0.1:9"),
        ("http_proxy", "gopher://127.0.0.1:9", "http://photos.example", "gopher://127.0.0.1:9 .* cannot be used"),
        ("SSL_CERT_FILE", "/none.pem", "https://photos.example", "SSL_CERT_FILE=/none.pem cannot be read"),
        ("SSL_CERT_FILE", "/none.pem", "https://localhost:9", "SSL_CERT_FILE=/none.pem cannot be read"),
        ("NO_PROXY", "", "127.0.0.1:8080", "try http://127.0.0.1:8080"),
        ("NO_PROXY", "", "htp://localhost", "try http://localhost"),
        ("NO_PROXY", "", "http://a:b:c", "is no address"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, url: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ServiceError, match=says) as told, Client(url) as client:
        client.lengths()
    assert "secret" not in str(told.value)


def test_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost", "a.localhost")))
    assert not any(map(is_loopback, ("photos.example", "10.0.0.1", "localhost.example")))

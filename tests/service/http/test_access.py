"""Keys and scopes: every endpoint with every kind of key, keys that change while they are served, rate limits."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from eigenlens.command import main
from eigenlens.service.errors import RateLimitError
from eigenlens.service.http import app as application
from eigenlens.service.http.app import create_app
from eigenlens.service.http.middleware.rate_limit import RateLimit
from eigenlens.service.http.policy import policy_of
from eigenlens.service.http.startup import open_state
from eigenlens.service.keys import add_key, read_keys, revoke_key
from tests.support.service import build_gallery, serving, settings_of, wait_for

OPEN, SEARCH, WRITE, ADMIN = "open", "search", "write", "admin"
# What each endpoint needs, where searching needs a key as well.
MATRIX = {
    "GET /healthz": OPEN,
    "GET /livez": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": OPEN,
    "POST /v1/session": OPEN,
    "POST /v1/search": SEARCH,
    "POST /v1/search/batch": SEARCH,
    "GET /v1/lengths": SEARCH,
    "POST /v1/embeddings": SEARCH,
    "POST /embeddings": SEARCH,
    "GET /v1/models": SEARCH,
    "GET /v1/models/{model}": SEARCH,
    "GET /v1/eigenfunctions": SEARCH,
    "GET /v1/eigenfunctions/{coordinate}": SEARCH,
    "GET /v1/duplicates": SEARCH,
    "GET /v1/facets": SEARCH,
    "GET /v1/exif": SEARCH,
    "GET /v1/map": SEARCH,
    "GET /v1/map/images": SEARCH,
    "GET /v1/images": SEARCH,
    "GET /v1/images/{id:image}": SEARCH,
    "GET /v1/images/{id:path}/content": SEARCH,
    "GET /v1/images/{id:path}/thumbnail": SEARCH,
    "POST /v1/images": WRITE,
    "PUT /v1/images/{id:image}": WRITE,
    "PATCH /v1/images/{id:image}": WRITE,
    "DELETE /v1/images/{id:image}": WRITE,
    "POST /v1/admin/rebuild": ADMIN,
    "POST /v1/admin/recalibrate": ADMIN,
    "DELETE /v1/admin/recent-queries": ADMIN,
    "POST /v1/admin/duplicates": ADMIN,
    "POST /v1/admin/import": ADMIN,
    "POST /v1/admin/sync": ADMIN,
    "GET /v1/admin/jobs": ADMIN,
    "GET /v1/admin/jobs/{id}": ADMIN,
    "GET /v1/admin/jobs/{id}/events": ADMIN,
    "POST /v1/admin/jobs/{id}/cancel": ADMIN,
    "GET /v1/admin/generations": ADMIN,
    "POST /v1/admin/generations/{number}/activate": ADMIN,
    "DELETE /v1/admin/generations/{number}": ADMIN,
    "GET /v1/admin/stats": ADMIN,
    "GET /v1/admin/backup": ADMIN,
    "GET /v1/admin/backups": ADMIN,
    "POST /v1/admin/backups": ADMIN,
    "DELETE /v1/admin/backups/{name}": ADMIN,
    "POST /v1/admin/restore": ADMIN,
}
KINDS = ("none", "wrong", "search", "write", "admin", "revoked", "generated")
HAS = {"search": {SEARCH}, "write": {WRITE}, "admin": {SEARCH, WRITE, ADMIN}, "generated": {SEARCH, WRITE, ADMIN}}


class Guarded(NamedTuple):
    """A service where searching needs a key, one where it does not, and a key of each kind."""

    closed: httpx.Client
    open: httpx.Client
    keys: dict[str, str]
    path: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    gallery = build_gallery(tmp_path_factory.mktemp("keys"), count=4)
    path = settings_of(gallery).keys_path
    keys = {"none": "", "wrong": "el_" + "x" * 43}
    for scope in (SEARCH, WRITE, ADMIN):
        _, keys[scope] = add_key(path, name=scope, scopes=[scope])
    revoked, keys["revoked"] = add_key(path, name="revoked", scopes=[ADMIN])
    revoke_key(path, revoked.id)
    with serving(settings_of(gallery, search_needs_key=True)) as closed, serving(settings_of(gallery)) as opened:
        keys["generated"] = settings_of(gallery).key_file.read_text().strip()
        yield Guarded(closed, opened, keys, path)


def ask(client: httpx.Client, endpoint: str, key: str) -> int:
    """The status of a request that changes nothing, whoever is allowed to send it."""
    method, path = endpoint.split(" ")
    path = re.sub(r"\{(number|coordinate)\}", "999999", path)
    path = re.sub(r"\{[^}]+\}", "none", path)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if path == "/v1/admin/backups" and method == "POST":
        path += "?name=../not-a-name"
    body = {"content": b"not json", "headers": headers | {"content-type": "application/json"}}
    with client.stream(method, path, **(body if method not in ("GET", "DELETE") else {"headers": headers})) as found:
        return found.status_code


def test_the_administrators_link_is_taken_once_and_its_key_is_nowhere_on_disk(tmp_path: Path) -> None:
    settings = settings_of(build_gallery(tmp_path, count=2))
    state = open_state(settings)
    older, token = state.keyring.make_link_token(), state.keyring.make_link_token()
    with TestClient(create_app(settings, opened=state)) as own:
        assert own.post("/v1/session", json={"token": older}).status_code == 401
        key = own.post("/v1/session", json={"token": token}).json()["key"]
        assert own.post("/v1/session", json={"token": token}).status_code == 401
        bearer = {"authorization": f"Bearer {key}"}
        assert own.get("/v1/admin/stats", headers=bearer).status_code == 200
        assert own.get("/favicon.ico").headers["content-type"].startswith("image/")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in files for secret in (key, token))


def test_every_endpoint_has_a_row() -> None:
    routes = [route for module in application._ROUTES for route in module.router.routes]
    endpoints = {f"{m} {r.path}" for r in routes if isinstance(r, APIRoute) for m in r.methods or ()}
    assert endpoints == set(MATRIX)


@pytest.mark.parametrize(
    "call", ["PUT /v1/images", "POST /v1/admin/stats", "PATCH /v1/search", "PUT /v1/images/a/content"]
)
def test_a_method_that_no_route_has_is_405_whoever_asks(guarded: Guarded, call: str) -> None:
    method, path = call.split(" ")
    for key in guarded.keys.values():
        headers = {"authorization": f"Bearer {key}"} if key else {}
        found = guarded.closed.request(method, path, headers=headers)
        assert (found.status_code, method in found.headers["allow"]) == (405, False)


@pytest.mark.parametrize("endpoint", MATRIX)
def test_the_scope_matrix(guarded: Guarded, endpoint: str) -> None:
    needed = MATRIX[endpoint]
    for kind in KINDS:
        closed, opened = (ask(client, endpoint, guarded.keys[kind]) for client in (guarded.closed, guarded.open))
        known = kind in HAS
        refused = 403 if known else 401
        allowed = needed == OPEN or needed in HAS.get(kind, set())
        assert (closed in (401, 403)) != allowed, (kind, closed)
        assert allowed or closed == refused, (kind, closed)
        assert closed < 500
        assert opened == closed or needed == SEARCH, (kind, opened)
        assert needed != SEARCH or opened not in (401, 403), (kind, opened)


def test_keys_come_and_go_without_a_restart(guarded: Guarded) -> None:
    key, secret = add_key(guarded.path, name="passing", scopes=[ADMIN])
    wait_for(lambda: ask(guarded.open, "GET /v1/admin/jobs", secret) == 200, timeout_s=3)
    revoke_key(guarded.path, key.id)
    wait_for(lambda: ask(guarded.open, "GET /v1/admin/jobs", secret) == 401, timeout_s=3)


def test_a_damaged_file_of_keys_leaves_the_keys_that_were_read(guarded: Guarded) -> None:
    good = guarded.path.read_bytes()
    guarded.path.write_bytes(b"{")
    try:
        with pytest.raises(AssertionError):
            wait_for(lambda: ask(guarded.open, "GET /v1/admin/jobs", guarded.keys["admin"]) != 200, timeout_s=1)
    finally:
        guarded.path.write_bytes(good)


def test_the_command_makes_lists_and_revokes_and_keeps_no_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = ["keys", "--gallery", str(tmp_path)]
    assert main([*gallery, "add", "a\nb", "--scope", "write", "--scope", "search"]) == 0
    secret = capsys.readouterr().out.strip()
    path = tmp_path / "keys.json"
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    [key] = read_keys(path)
    assert key.scopes == ("search", "write")
    assert main([*gallery, "list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1, "a name adds no line"
    assert main([*gallery, "revoke", "none"]) == 1
    assert key.id in capsys.readouterr().err
    assert main([*gallery, "revoke", key.id]) == 0
    assert read_keys(path) == []


def test_a_bucket_of_tokens_fills_at_its_rate() -> None:
    limit = RateLimit(rate=2, burst=3)
    for _ in range(3):
        limit.take("a", now=0)
    with pytest.raises(RateLimitError):
        limit.take("a", now=0)
    limit.take("b", now=0)
    limit.take("a", now=0.5)
    with pytest.raises(RateLimitError):
        limit.take("a", now=0.5)


def test_a_client_beyond_its_rate_is_told_when_to_come_back(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=2)
    _, key = add_key(settings_of(gallery).keys_path, name="k", scopes=[SEARCH])
    with serving(settings_of(gallery, rate_limit=0.01, rate_burst=2)) as client:
        answers = [client.get("/v1/lengths") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["type"] == "/problems/rate-limited"
        assert 90 <= int(answers[2].headers["retry-after"]) <= 100
        assert client.get("/v1/lengths", headers={"api-key": key}).status_code == 200, "a key counts for itself"
        assert {client.get("/readyz").status_code for _ in range(5)} == {200}


def test_other_origins_may_only_where_a_setting_names_them(tmp_path: Path) -> None:
    gallery = build_gallery(tmp_path, count=2)
    asked = {"origin": "https://shop.example"}
    with serving(settings_of(gallery)) as client:
        assert "access-control-allow-origin" not in client.get("/v1/lengths", headers=asked).headers
    with serving(settings_of(gallery, cors_origins="https://shop.example")) as client:
        found = client.get("/v1/lengths", headers=asked).headers
        assert found["access-control-allow-origin"] == "https://shop.example"
        other = client.get("/v1/lengths", headers={"origin": "https://other.example"}).headers
        assert "access-control-allow-origin" not in other


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/search", "search"),
        ("POST", "/v1/search/batch", "search"),
        ("POST", "/embeddings", "search"),
        ("GET", "/v1/images/a/b.png", "search"),
        ("PUT", "/v1/images/a/b.png", "write"),
        ("POST", "/v1/images", "write"),
        ("GET", "/v1/admin/stats", "admin"),
        ("POST", "/v1/what/comes/later", "admin"),
        ("GET", "/healthz", None),
        ("GET", "/v1x", None),
        ("GET", "/views/search.js", None),
    ],
)
def test_the_scope_of_a_route_is_in_the_table_of_policies(method: str, path: str, scope: str | None) -> None:
    assert policy_of(path).scope_of(method) == scope

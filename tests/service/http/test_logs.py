"""Log lines and traces: every line belongs to its request, and what a client sends cannot write lines of its own."""

from __future__ import annotations

import http.server
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from eigenlens.service.errors import SettingsError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.http.app import create_app
from eigenlens.service.telemetry.logs import JsonLines, TextLines, request_id
from tests.support.service import build_gallery, code_of, pixels_of, png, settings_of, wait_for


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    built = build_gallery(tmp_path_factory.mktemp("logs"), count=6)
    built.store.close()
    return built


@contextmanager
def served(gallery: Gallery, log: Path, *flags: str, **environment: str) -> Iterator[str]:
    """The address of a service in a process of its own, whose standard error goes to `log`."""
    command = [sys.executable, "-m", "eigenlens", "serve", "--gallery", str(gallery.root), "--port", "0", *flags]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors, env=os.environ | environment)
    try:
        address = wait_for(lambda: re.search(r"at (http://\S+)", log.read_text()), timeout_s=30)[1]
        wait_for(lambda: "Application startup complete" in log.read_text(), timeout_s=60)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)


def test_json_lines_have_an_object_each_with_the_requests_id(gallery: Gallery, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with served(gallery, log, "--log-format", "json", "--log-requests", "true") as address:
        httpx.get(f"{address}/v1/lengths", headers={"X-Request-Id": "mine-1"}).raise_for_status()
        answer = httpx.get(f"{address}/v1/images/none%0A%7B%22level%22:%22error%22%7D")
        assert answer.status_code == 404
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    told = [json.loads(line) for line in lines]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(entry) for entry in told))
    requests = [entry for entry in told if entry["logger"] == "eigenlens.requests"]
    assert [entry["status"] for entry in requests] == [200, 404]
    assert requests[0]["request_id"] == "mine-1"
    assert requests[1]["request_id"] == answer.headers["X-Request-Id"] == answer.json()["request_id"]
    assert requests[1]["path"].startswith("/v1/images/none\n")
    assert not [entry for entry in told if entry["level"] == "error"]


def test_text_lines_stay_one_line_and_requests_are_not_logged_unless_asked(gallery: Gallery, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with served(gallery, log) as address:
        httpx.get(f"{address}/v1/lengths").raise_for_status()
    assert "/v1/lengths" not in log.read_text()
    with served(gallery, log, "--log-requests", "true") as address:
        httpx.get(f"{address}/v1/images/none%0A2026-01-01%20ERROR%20forged", headers={"X-Request-Id": "mine-2"})
        key = (gallery.root / "admin.key").read_text().strip()
        for sent in (key, f"{key}x"):  # a right one and a wrong one, wherever a client may put it
            httpx.get(f"{address}/v1/admin/jobs", headers={"Authorization": f"Bearer {sent}"})
            httpx.get(f"{address}/v1/admin/jobs", headers={"api-key": sent})
            httpx.get(f"{address}/v1/lengths", params={"key": sent})
    assert key not in log.read_text(), "secrets are never logged"
    lines = log.read_text().splitlines()
    [line] = [line for line in lines if "none" in line]
    assert "[mine-2]: GET /v1/images/none\\x0a2026-01-01 ERROR forged 404" in line
    assert not [line for line in lines if line.startswith("2026-01-01")]


def test_what_fails_is_logged_with_its_reason_in_either_style() -> None:
    try:
        raise ValueError("the reason\nof two lines")
    except ValueError:
        record = logging.LogRecord("a.b", logging.ERROR, "f.py", 1, "it %s", ("failed\r\n",), sys.exc_info())
    token = request_id.set("the-id")
    try:
        told = json.loads(JsonLines().format(record))
        text = TextLines().format(record)
    finally:
        request_id.reset(token)
    assert told["request_id"] == "the-id"
    assert told["message"] == "it failed\r\n"
    assert told["exception"].endswith("ValueError: the reason\nof two lines")
    assert "ERROR a.b [the-id]: it failed\\x0d\\x0a\nTraceback" in text


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """What a service's traces are sent to: its address, and the bodies that came."""
    bodies: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_requests_are_traced_where_an_endpoint_is_configured(gallery: Gallery, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.instrumentation.asgi")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    with collector() as (endpoint, bodies):
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        with served(gallery, tmp_path / "log", **traced) as address:
            parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            code = code_of(pixels_of(1)).tolist()
            headers = {"X-Request-Id": "mine-3", "traceparent": parent}
            httpx.post(f"{address}/v1/search", json={"code": code}, headers=headers).raise_for_status()
            httpx.post(f"{address}/v1/search", files={"image": png(pixels_of(2))}).raise_for_status()
            httpx.get(f"{address}/readyz").raise_for_status()
    spans, services = [], set()
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            spans += [span for scope in resource.scope_spans for span in scope.spans]
    assert services == {"eigenlens"}
    assert len(spans) == 2, "probes are not traced"
    [first] = [span for span in spans if span.trace_id.hex() == parent.split("-")[1]]
    attributes = {a.key: a.value for a in first.attributes}
    assert [v.string_value for v in attributes["http.response.header.x_request_id"].array_value.values] == ["mine-3"]
    [stages] = attributes["http.response.header.server_timing"].array_value.values
    assert "search" in stages.string_value


def test_tracing_without_its_packages_says_what_to_install(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set.*pip install -e .*\[otel\]"):
        create_app(settings_of(gallery))

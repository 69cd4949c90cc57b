"""OpenTelemetry, where it is configured: a span for every request, with its stages and its id."""

from __future__ import annotations

import os

from fastapi import FastAPI

from eigenlens.install import install_line
from eigenlens.service.errors import SettingsError

# OpenTelemetry's own settings say where spans go; one of these switches tracing on.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def install_tracing(app: FastAPI) -> None:
    """Trace requests if an endpoint is configured. Raises: SettingsError, if the packages for it are missing."""
    endpoint = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise SettingsError(f"{endpoint} is set, and tracing needs packages: {install_line('otel')}") from None
    name = os.environ.get("OTEL_SERVICE_NAME", "eigenlens")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    app.state.tracing = provider
    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        excluded_urls="healthz,livez,readyz,metrics",
        exclude_spans=["receive", "send"],
        http_capture_headers_server_response=["server-timing", "x-request-id"],
    )

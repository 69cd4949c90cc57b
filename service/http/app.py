"""The application: its routes and middleware, and the state that it opens at start-up and closes at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

import eigenlens
from eigenlens.service.http import openapi, problems, static_page
from eigenlens.service.http.middleware.access import AccessMiddleware
from eigenlens.service.http.middleware.addresses import AddressMiddleware
from eigenlens.service.http.middleware.body_limit import BodyLimit
from eigenlens.service.http.middleware.compression import GzipAnswers
from eigenlens.service.http.middleware.fast_path import FastPath
from eigenlens.service.http.middleware.rate_limit import RateLimit
from eigenlens.service.http.middleware.request_id import RequestIdMiddleware
from eigenlens.service.http.routes import (
    admin,
    backups,
    batch,
    browse,
    duplicates,
    eigenfunctions,
    embeddings,
    gallery_map,
    health,
    images,
    jobs,
    metadata,
    search,
    visits,
)
from eigenlens.service.http.startup import keep_current, keep_frozen, open_state
from eigenlens.service.http.state import State
from eigenlens.service.settings import Settings, load_settings
from eigenlens.service.telemetry.logs import configure_logs
from eigenlens.service.telemetry.tracing import install_tracing

# The id of an image is a path and matches almost anything, so other routes at /v1/images come before `images`.
_ROUTES = (
    search,
    batch,
    embeddings,
    eigenfunctions,
    gallery_map,
    browse,
    duplicates,
    metadata,
    images,
    admin,
    jobs,
    backups,
    visits,
    health,
)
PAGE = Path(__file__).parents[1] / "page"
_FORM_OVERHEAD_BYTES = 64 * 1024


def create_app(settings: Settings, *, opened: State | None = None, only_serves: bool = False) -> FastAPI:
    """Return the application over one gallery, which is opened at start-up unless it is `opened` already.

    Args:
        only_serves: whether this process does nothing else, so that what it has loaded needs no garbage collection.

    Start-up raises: GalleryError, ArtifactError, if there is nothing to serve; KeyFileError.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state: State = opened if opened is not None else await to_thread.run_sync(open_state, settings)
        app.state.eigenlens = state
        tasks = [asyncio.create_task(keep_current(state))]
        if only_serves:
            tasks.append(asyncio.create_task(keep_frozen()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await to_thread.run_sync(state.recall.close)
            await to_thread.run_sync(state.runner.close)
            await to_thread.run_sync(state.batcher.close)
            state.decoders.shutdown()
            state.serving.close()
            state.gallery.store.close()
            if hasattr(app.state, "tracing"):
                await to_thread.run_sync(app.state.tracing.shutdown)

    app = FastAPI(
        title="Eigenlens",
        summary="Adaptive-length image retrieval: each search chooses its code length.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        version=eigenlens.__version__,
        openapi_tags=openapi.TAGS,
        generate_unique_id_function=lambda route: route.name,
        # This project's own is in service.telemetry. To look whether the framework's is on takes time.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    problems.install(app)
    routers = [routes.router for routes in _ROUTES]
    for router in routers:
        app.include_router(router)
    openapi.install(app, routers, search_needs_key=settings.search_needs_key, root_path=settings.root_path)
    files = static_page.Page(PAGE, routers)
    app.mount("/", files, name="page")
    limit = max_body_bytes(settings.max_image_bytes)
    app.add_middleware(FastPath, routes={"/v1/search": search.search})
    app.add_middleware(
        BodyLimit,
        max_bytes=limit,
        max_batch_bytes=max(limit, settings.max_batch_bytes),
        timeout_s=settings.upload_timeout_s,
    )
    rate_limit = None if settings.rate_limit is None else RateLimit(rate=settings.rate_limit, burst=settings.rate_burst)
    app.add_middleware(
        AccessMiddleware, search_needs_key=settings.search_needs_key, rate_limit=rate_limit, serves=files.serves
    )
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if origins:
        exposed = ["X-Request-Id", "Retry-After", "Server-Timing"]
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=exposed
        )
    app.add_middleware(GzipAnswers)
    app.add_middleware(AddressMiddleware, root_path=settings.root_path)
    app.add_middleware(RequestIdMiddleware, log_requests=settings.log_requests)
    install_tracing(app)
    return app


def max_body_bytes(max_image_bytes: int) -> int:
    """Return how many bytes the body of a request with one image may have; base64 makes an image a third larger."""
    return max_image_bytes * 4 // 3 + _FORM_OVERHEAD_BYTES


def from_environment() -> FastAPI:
    """Return the application of one worker of several. Raises: SettingsError; as open_state."""
    settings = load_settings()
    configure_logs(settings.log_format)
    return create_app(settings, opened=open_state(settings), only_serves=True)

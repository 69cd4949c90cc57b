"""The application: routes, middleware, and what is opened at start-up and closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from eigenlens.index.faiss_engine.gpu import open_gpu
from eigenlens.service.errors import KeyFileError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.http import openapi, problems, static_page
from eigenlens.service.http.answers import AnswerWriter
from eigenlens.service.http.middleware.access import Guard, RateLimit
from eigenlens.service.http.middleware.body_limit import BodyLimit, RequestEnvelope, Shortcut
from eigenlens.service.http.routes import (
    admin,
    backups,
    batch,
    browse,
    eigenfunctions,
    embeddings,
    health,
    images,
    jobs,
    search,
)
from eigenlens.service.http.state import Compute, State
from eigenlens.service.jobs.runner import Runner
from eigenlens.service.jobs.store import Jobs, now
from eigenlens.service.keys import Keyring
from eigenlens.service.search.batching import Batcher, Observe
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.pipeline import Pipeline
from eigenlens.service.settings import Settings, load_settings, processors
from eigenlens.service.telemetry.logs import configure_logs
from eigenlens.service.telemetry.metrics import Metrics
from eigenlens.service.telemetry.tracing import install_tracing

log = logging.getLogger(__name__)

# Ids of images are paths, so what is more than an id comes before `images`.
_ROUTES = (
    search,
    batch,
    embeddings,
    eigenfunctions,
    browse,
    images,
    admin,
    jobs,
    backups,
    health,
)
PAGE = Path(__file__).parents[1] / "page"
_FOLLOW_EVERY_S = 0.5
_BATCH_PATHS = ("/v1/images", "/v1/search/batch", "/v1/embeddings", "/embeddings")
_FORM_OVERHEAD_BYTES = 64 * 1024


def create_app(settings: Settings, *, opened: State | None = None) -> FastAPI:
    """The service over one gallery, which is opened when the application starts, unless it is `opened` already.

    Start-up raises: GalleryError, ArtifactError, if there is nothing to serve; KeyFileError.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state: State = opened if opened is not None else await to_thread.run_sync(open_state, settings)
        app.state.eigenlens = state
        following = asyncio.create_task(_follow(state))
        try:
            yield
        finally:
            following.cancel()
            await to_thread.run_sync(state.runner.close)
            await to_thread.run_sync(state.batcher.close)
            state.decoders.shutdown()
            state.gallery.store.close()
            os.close(state.serving)
            if hasattr(app.state, "tracing"):
                await to_thread.run_sync(app.state.tracing.shutdown)

    app = FastAPI(
        title="Eigenlens",
        summary="Adaptive-length image retrieval: each search chooses its code length.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        version="1",
        generate_unique_id_function=lambda route: route.name,
    )
    problems.install(app)
    routers = [routes.router for routes in _ROUTES]
    for router in routers:
        app.include_router(router)
    openapi.install(app, routers, search_needs_key=settings.search_needs_key)
    files = static_page.Page(PAGE, routers)
    app.mount("/", files, name="page")
    # base64 makes an image a third larger
    limit = settings.max_image_bytes * 4 // 3 + _FORM_OVERHEAD_BYTES
    batches = dict.fromkeys(_BATCH_PATHS, max(limit, settings.max_batch_bytes))
    app.add_middleware(Shortcut, routes={"/v1/search": search.search})
    app.add_middleware(BodyLimit, max_bytes=limit, larger=batches, timeout_s=settings.upload_timeout_s)
    limit_of = None if settings.rate_limit is None else RateLimit(rate=settings.rate_limit, burst=settings.rate_burst)
    app.add_middleware(Guard, search_needs_key=settings.search_needs_key, limit=limit_of, serves=files.serves)
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if origins:
        exposed = ["X-Request-Id", "Retry-After", "Server-Timing"]
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=exposed
        )
    app.add_middleware(RequestEnvelope, log_requests=settings.log_requests)
    install_tracing(app)
    return app


def open_state(settings: Settings, *, observe: Observe | None = None) -> State:
    """Open the gallery, serve its current generation, take note of jobs that a killed service left behind.

    Args:
        observe: called, from several threads, with what is measured of searches: "batch" (searches done together) and
            seconds of the stages "queue", "decode", "encode" and "search"; the metrics, unless given.
    """
    started = now()
    metrics = Metrics()
    observe = observe or metrics.observe
    gpu = open_gpu(settings.search_device)
    gallery = Gallery(settings.gallery)
    serving = gallery.serving()
    snapshots = SnapshotManager(
        gallery,
        open_engine=partial(gallery.open_engine, gpu=gpu),
        runtime=settings.runtime,
        threads=max(settings.compute_threads, processors() // settings.workers),
        streams=settings.compute_threads,
        max_batch=settings.max_batch,
    )
    snapshots.load()
    jobs = Jobs(gallery)
    pipeline = Pipeline(
        snapshots,
        write=AnswerWriter().write,
        max_pixels=settings.max_pixels,
        max_k=settings.max_k,
        observe=observe,
        observe_search=metrics.observe_search,
    )
    return State(
        settings=settings,
        gallery=gallery,
        snapshots=snapshots,
        jobs=jobs,
        abandoned_ended=jobs.fail_abandoned(before=started),
        started=started,
        runner=Runner(gallery, jobs, on_done=snapshots.follow, search_device=settings.search_device),
        keyring=Keyring(admin_key_file=settings.key_file, keys_file=settings.keys_path),
        metrics=metrics,
        compute=Compute(threads=settings.compute_threads, max_waiting=settings.max_waiting),
        batcher=Batcher(
            pipeline.prepare,
            pipeline.finish,
            threads=settings.compute_threads,
            max_waiting=settings.max_waiting,
            max_batch=lambda: snapshots.max_batch,
            deadline_s=settings.deadline_s,
            observe=observe,
        ),
        # One at a time: they would wait for the database's one writer anyway, and searches keep their threads.
        ingest=Compute(threads=1, max_waiting=settings.max_waiting),
        decoders=ThreadPoolExecutor(settings.compute_threads, thread_name_prefix="decode"),
        serving=serving,
    )


def open_for_good(settings: Settings) -> State:
    """As open_state, in a process that does nothing but serve it.

    What is loaded by then stays. The garbage collector would look through all of it time and again, and hold every
    search up for tens of milliseconds.
    """
    state = open_state(settings)
    gc.collect()
    gc.freeze()
    return state


async def _follow(state: State) -> None:
    """Notice what other processes publish, activate, add and remove, and jobs that a killed service left behind."""
    while True:
        await asyncio.sleep(_FOLLOW_EVERY_S)
        state.metrics.depth.set(state.batcher.depth)  # for those that ask another worker
        try:
            await to_thread.run_sync(state.keyring.refresh)
        except KeyFileError as error:
            log.warning("changed keys cannot be read; those of before count on: %s", error)
        try:
            await to_thread.run_sync(state.snapshots.follow)
            if not state.abandoned_ended:
                state.abandoned_ended = await to_thread.run_sync(
                    partial(state.jobs.fail_abandoned, before=state.started)
                )
        except Exception:
            log.exception("looking for a new generation failed; the present one is served on")


def from_environment() -> FastAPI:
    """The application of one worker of several. Raises: SettingsError; as open_state."""
    settings = load_settings()
    configure_logs(settings.log_format)
    return create_app(settings, opened=open_for_good(settings))

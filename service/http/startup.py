"""Start-up of an application: opens its state, and keeps it up to date while it serves."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from eigenlens.artifact import EigenlensError
from eigenlens.index.faiss_engine.gpu import open_gpu
from eigenlens.index.qdrant_engine.server import server_at
from eigenlens.processors import processors
from eigenlens.service.errors import KeyFileError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.records import Position
from eigenlens.service.http.answers import AnswerWriter
from eigenlens.service.http.state import State
from eigenlens.service.http.thread_limits import ThreadLimiter
from eigenlens.service.jobs.runner import Runner
from eigenlens.service.jobs.store import Jobs, now
from eigenlens.service.keys import Keyring
from eigenlens.service.search.batching import Batcher, Observe
from eigenlens.service.search.live_recall import RecallChecker
from eigenlens.service.search.manager import SnapshotManager
from eigenlens.service.search.pipeline import Pipeline
from eigenlens.service.search.recent_queries import RecentQueries
from eigenlens.service.search.request import SearchRequest
from eigenlens.service.search.snapshot import SearchResult, Snapshot
from eigenlens.service.settings import Settings
from eigenlens.service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_FOLLOW_EVERY_S = 0.5


def open_state(settings: Settings, *, observe: Observe | None = None) -> State:
    """Open the gallery, serve its current generation, and end jobs that a killed service left behind.

    Args:
        observe: called from several threads with measurements of searches: "batch" (number of searches in a batch) and
            seconds of the stages "queue", "decode", "encode" and "search"; the metrics if None.
    """
    started = now()
    metrics = Metrics()
    observe = observe or metrics.observe
    gpu = open_gpu(settings.search_device)
    qdrant = server_at(settings.backend_url, settings.backend_api_key)
    gallery = Gallery(settings.gallery, store=settings.store, qdrant=qdrant)
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
    if gallery.store.read_only:
        log.warning("%s cannot be written: it is served read-only", gallery.root)
    jobs = Jobs(gallery)
    queries = RecentQueries(settings.recent_queries)
    recall = RecallChecker(settings.recall_share, snapshots)

    def keep(
        snapshot: Snapshot,
        position: Position,
        code: NDArray[np.float32],
        request: SearchRequest,
        result: SearchResult,
    ) -> None:
        key = request.exclude_keys[0] if len(request.exclude_keys) == 1 else None
        queries.add(code, key=key, encoder_id=snapshot.engine.encoder_id)
        recall.offer(snapshot, position, code, request, result)

    pipeline = Pipeline(
        snapshots,
        write=AnswerWriter(root_path=settings.root_path).write,
        max_pixels=settings.max_pixels,
        max_k=settings.max_k,
        observe=observe,
        observe_search=metrics.observe_search,
        observe_result=keep,
    )
    batcher = Batcher(
        pipeline.prepare,
        pipeline.finish,
        threads=settings.compute_threads,
        max_waiting=settings.max_waiting,
        max_batch=lambda: snapshots.max_batch,
        deadline_s=settings.deadline_s,
        observe=observe,
    )
    batcher.answer_at_once(pipeline.is_light, pipeline.answer_light)
    recall.start(is_idle=lambda: batcher.depth == 0, has_room=lambda: batcher.waiting == 0)
    return State(
        settings=settings,
        gallery=gallery,
        snapshots=snapshots,
        jobs=jobs,
        abandoned_ended=jobs.fail_abandoned(),
        started=started,
        runner=Runner(gallery, jobs, on_done=snapshots.follow, search_device=settings.search_device),
        keyring=Keyring(
            admin_key_file=settings.key_file,
            keys_file=settings.keys_path,
            create=not gallery.store.read_only or settings.admin_key_file is not None,
        ),
        metrics=metrics,
        read_threads=ThreadLimiter(threads=settings.compute_threads, max_waiting=settings.max_waiting),
        batcher=batcher,
        queries=queries,
        recall=recall,
        forgotten=gallery.store.last_forgetting(),
        # One thread: the database has one writer at a time anyway, and searches keep the other threads.
        ingest_threads=ThreadLimiter(threads=1, max_waiting=settings.max_waiting),
        decoders=ThreadPoolExecutor(settings.compute_threads, thread_name_prefix="decode"),
        serving=serving,
    )


async def keep_frozen() -> None:
    """Exclude all objects so far from garbage collection, and again what modules that are imported later leave.

    For a process that only serves: these objects stay until its end. A collection that looks through all of them delays
    searches by tens of milliseconds.
    """
    modules = 0
    while True:
        if len(sys.modules) != modules:
            gc.collect()
            gc.freeze()
            modules = len(sys.modules)
        await asyncio.sleep(_FOLLOW_EVERY_S)


async def keep_current(state: State) -> None:
    """Take over what other processes publish, activate, add and remove; end jobs that a killed service left behind."""
    told = ""
    while True:
        await asyncio.sleep(_FOLLOW_EVERY_S)
        state.metrics.depth.set(state.batcher.depth)  # another worker may answer /metrics
        try:
            await to_thread.run_sync(state.keyring.refresh)
        except KeyFileError as error:
            log.warning("changed keys cannot be read; the earlier ones stay valid: %s", error)
        try:
            await to_thread.run_sync(state.follow_forgetting)
            await to_thread.run_sync(state.snapshots.follow)
            await to_thread.run_sync(state.hold_serving)
            if not state.abandoned_ended:
                state.abandoned_ended = await to_thread.run_sync(state.jobs.fail_abandoned)
            told = ""
        except EigenlensError as error:  # such as a database that is gone for a while: told once
            if str(error) != told:
                told = str(error)
                log.warning("what changed in the gallery cannot be followed: %s", error)
        except Exception:
            log.exception("looking for a new generation failed; the present one stays")

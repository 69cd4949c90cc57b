"""The process of a job: does its work and records its progress and its result in the job.

Started by the service as `python -P -m eigenlens.service.jobs.worker GALLERY --job ID --search-device DEVICE
--payload-bytes N`; reads so many bytes from its standard input, and ends when that closes.
"""

from __future__ import annotations

import argparse
import logging
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

from eigenlens.artifact import EigenlensError
from eigenlens.index.faiss_engine.gpu import open_gpu
from eigenlens.index.qdrant_engine.explained import KEY_VARIABLE
from eigenlens.index.qdrant_engine.server import URL_VARIABLE, server_at
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.store.open import VARIABLE
from eigenlens.service.jobs.store import Jobs
from eigenlens.service.jobs.tasks import TASKS, Task
from eigenlens.system_errors import describe

_RECORD_EVERY_S = 0.2
_NICENESS = 10
# The removal of a generation holds the writer's lock for a moment.
_LOCK_TIMEOUT_S = 1.0


class JobProgress(Progress):
    """Records progress in the jobs table, a few times a second."""

    def __init__(self, jobs: Jobs, job_id: str) -> None:
        self._jobs, self._job_id = jobs, job_id
        self._stage, self._done, self._total, self._recorded = "", 0, 0, 0.0

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` items."""
        self._stage, self._done, self._total = stage, 0, total
        self._record()

    def advance(self, count: int) -> None:
        """Count `count` more items as done."""
        self._done += count
        if time.monotonic() - self._recorded >= _RECORD_EVERY_S or self._done >= self._total:
            self._record()

    def log(self, text: str) -> None:
        """Log a message."""
        logging.info(text)

    def _record(self) -> None:
        self._jobs.progress(self._job_id, stage=self._stage, done=self._done, total=self._total)
        self._recorded = time.monotonic()


def main() -> int:
    """Do one job; the service records its end once it has switched to the result. Returns: the exit status."""
    parser = argparse.ArgumentParser(description="Do a job of the service, such as a rebuild.")
    parser.add_argument("gallery", type=Path)
    parser.add_argument("--job", required=True)
    parser.add_argument("--search-device", required=True)
    parser.add_argument("--payload-bytes", type=int, default=0)
    args = parser.parse_args()
    payload = _read_payload(args.payload_bytes)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)

    qdrant = server_at(os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE))
    gallery = Gallery(args.gallery, store=os.environ.get(VARIABLE), qdrant=qdrant)
    job_lock = gallery.store.lock("job", shared=True)  # until this process ends
    if job_lock is None:
        return 3  # the service that started this process has ended, and another one starts a job
    jobs = Jobs(gallery)
    job = jobs.get(args.job)
    commit_lock = threading.Lock()
    threading.Thread(target=end_when_cancelled, args=(jobs, job.id, commit_lock), daemon=True).start()
    progress = JobProgress(jobs, job.id)
    try:
        progress.start("open", 0)
        with gallery.writing(wait_s=_LOCK_TIMEOUT_S):
            gpu = open_gpu(args.search_device)
            TASKS[job.kind](Task(gallery, jobs, job.id, job.options, progress, gpu, payload, commit_lock))
    except EigenlensError as error:
        jobs.finish(job.id, error=str(error))
        return 1
    except (OSError, sqlite3.Error) as error:
        logging.exception("job %s failed", job.id)
        jobs.finish(job.id, error=describe(error))
        return 1
    except Exception:
        logging.exception("job %s failed", job.id)
        jobs.finish(job.id, error="the job failed unexpectedly; the service's log has the reason")
        return 1
    return 0


def end_when_cancelled(jobs: Jobs, job_id: str, commit_lock: threading.Lock) -> None:
    """End this process when its job is marked to be cancelled, unless the job has a result already.

    The next build removes unfinished files. A switch and its record in the job are never separated.
    """
    while jobs.get(job_id).state != "cancelling":
        time.sleep(_RECORD_EVERY_S)
    with commit_lock:
        if not jobs.get(job_id).has_result:
            os._exit(4)


def _read_payload(size: int) -> bytes:
    """Read what the service sends first; end this process if the service ends before."""
    payload = b""
    while len(payload) < size:
        piece = os.read(sys.stdin.fileno(), size - len(payload))
        if not piece:
            os._exit(3)
        payload += piece
    return payload


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns at the end of the pipe; unlike sys.stdin.read it holds no lock
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())

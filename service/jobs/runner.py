"""The job runner: starts each job in a process of its own, which ends with the service even if that is killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from eigenlens.index.qdrant_engine.explained import KEY_VARIABLE
from eigenlens.index.qdrant_engine.server import URL_VARIABLE
from eigenlens.service.errors import JobRunningError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.locks import Lock
from eigenlens.service.gallery.store.open import VARIABLE
from eigenlens.service.gallery.store.records import Job
from eigenlens.service.jobs.store import Jobs


class Runner:
    """Starts jobs in processes of their own, which end with this process even if it is killed."""

    def __init__(self, gallery: Gallery, jobs: Jobs, *, on_done: Callable[[], None], search_device: str) -> None:
        self._gallery, self._jobs, self._on_done = gallery, jobs, on_done
        self._options = ("--search-device", search_device)
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None

    def start(self, kind: str, options: Mapping[str, Any], *, payload: bytes = b"") -> Job:
        """Start a job of a kind in `service.jobs.tasks.TASKS`. Raises: JobRunningError.

        Args:
            payload: for the job's process alone: unlike the options it is not recorded in the gallery.
        """
        lock = self._jobs.take()
        try:
            job = self._jobs.create(kind, options)
            if not lock.share():
                raise JobRunningError("another service started a job at this moment; wait for it to end")
            return self._start(job, payload, lock)
        except BaseException:
            lock.close()
            raise

    def _start(self, job: Job, payload: bytes, lock: Lock) -> Job:
        """Start the process of a job, which shares the lock; a thread closes it when the job has ended."""
        # -P: never import a file of the working directory in place of a module.
        worker = [sys.executable, "-P", "-m", "eigenlens.service.jobs.worker"]
        command = [*worker, str(self._gallery.root), "--job", job.id, *self._options]
        command += ["--payload-bytes", str(len(payload))]
        addresses = {VARIABLE: self._gallery.store_address, URL_VARIABLE: None, KEY_VARIABLE: None}
        if (qdrant := self._gallery.qdrant) is not None:
            addresses |= {URL_VARIABLE: qdrant.url, KEY_VARIABLE: qdrant.api_key}
        environment = {name: value for name, value in os.environ.items() if name not in addresses}
        environment |= {name: value for name, value in addresses.items() if value is not None}
        # The worker reads its standard input: first the payload. When this process ends, even by SIGKILL, the pipe
        # closes and so does it.
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment)
        except OSError as error:
            lock.close()
            self._jobs.finish(job.id, error=f"no process could be started: {error.strerror}")
            return self._jobs.get(job.id)
        watched = job.id, self._process, payload, lock
        self._watcher = threading.Thread(target=self._watch, args=watched, daemon=True)
        self._watcher.start()
        return job

    def close(self) -> None:
        """End a running job; the gallery stays as it was before the job."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        if self._watcher is not None:
            self._watcher.join(timeout=10)

    def _watch(self, job_id: str, process: subprocess.Popen[bytes], payload: bytes, lock: Lock) -> None:
        try:
            self._wait(job_id, process, payload)
        finally:
            lock.close()

    def _wait(self, job_id: str, process: subprocess.Popen[bytes], payload: bytes) -> None:
        if payload and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it ended already: its status tells
                process.stdin.write(payload)
                process.stdin.flush()
        status = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self._on_done()
        has_result = self._jobs.get(job_id).has_result
        problem = f"the job's process ended with status {status}; see the service's log"
        self._jobs.finish(job_id, error=None if has_result else problem)

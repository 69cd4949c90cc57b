"""Jobs, such as a rebuild: each runs in a process of its own and is recorded in the gallery's database."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from eigenlens.service.errors import JobEndedError, JobNotFoundError, JobRunningError
from eigenlens.service.gallery.layout import Gallery

log = logging.getLogger(__name__)

State = Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]
_COLUMNS = "id, kind, state, stage, done, total, options, error, generation, created, finished, result"


@dataclass(frozen=True)
class Job:
    """One job. `stage`, `done` and `total` say how far it is, `generation` what it published, `result` what it did."""

    id: str
    kind: str
    state: State
    stage: str
    done: int
    total: int
    options: dict[str, Any]
    error: str | None
    generation: int | None
    created: str
    finished: str | None
    result: dict[str, Any] | None

    @property
    def has_result(self) -> bool:
        """Whether what it was started for has happened."""
        return self.generation is not None or self.result is not None


class Jobs:
    """The jobs of one gallery, as every process that serves it sees them."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._store = gallery.store

    def create(self, kind: str, options: Mapping[str, Any]) -> Job:
        """Record a new job. Raises: JobRunningError, if one is queued or running."""
        job_id = uuid.uuid4().hex[:12]
        with self._store.transaction() as connection:
            active = connection.execute("SELECT id FROM jobs WHERE finished IS NULL").fetchone()
            if active is not None:
                raise JobRunningError(f"job {active[0]} is running already; wait for it to end")
            connection.execute(
                "INSERT INTO jobs (id, kind, state, options, created) VALUES (?, ?, 'queued', ?, ?)",
                (job_id, kind, json.dumps(options), now()),
            )
        return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """One job. Raises: JobNotFoundError."""
        rows = self._store.query(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,))  # noqa: S608 - constant
        if not rows:
            raise JobNotFoundError(f"there is no job '{job_id}'")
        return _job(rows[0])

    def list(self) -> list[Job]:
        """The last hundred jobs, newest first."""
        return [_job(row) for row in self._store.query(f"SELECT {_COLUMNS} FROM jobs ORDER BY rowid DESC LIMIT 100")]  # noqa: S608 - constant

    def progress(self, job_id: str, *, stage: str, done: int, total: int) -> None:
        """Record how far a running job is."""
        with self._store.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = CASE state WHEN 'queued' THEN 'running' ELSE state END, "
                "stage = ?, done = ?, total = ? WHERE id = ?",
                (stage, done, total, job_id),
            )

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end without a result; the process that works on it sees that. Raises: JobEndedError."""
        with self._store.transaction() as connection:
            asked = connection.execute(
                "UPDATE jobs SET state = 'cancelling' WHERE id = ? AND finished IS NULL "
                "AND generation IS NULL AND result IS NULL",
                (job_id,),
            )
        job = self.get(job_id)
        if asked.rowcount == 0:
            raise JobEndedError(f"job {job_id} has ended ({job.state}) and cannot be cancelled")
        return job

    def published(self, job_id: str, generation: int) -> None:
        """Record what a job built; it is done only when the service has switched to that."""
        with self._store.transaction() as connection:
            connection.execute("UPDATE jobs SET generation = ? WHERE id = ?", (generation, job_id))

    def did(self, job_id: str, result: Mapping[str, Any]) -> None:
        """Record what a job did other than to publish a generation."""
        with self._store.transaction() as connection:
            connection.execute("UPDATE jobs SET result = ? WHERE id = ?", (json.dumps(result), job_id))

    def finish(self, job_id: str, *, error: str | None = None) -> None:
        """Record how a job ended, unless its end is recorded already."""
        state = "done" if error is None else "failed"
        if error is not None and self.get(job_id).state == "cancelling":
            state, error = "cancelled", None
        with self._store.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, error = ?, finished = ? WHERE id = ? AND finished IS NULL",
                (state, error, now(), job_id),
            )

    def fail_abandoned(self, *, before: str) -> bool:
        """End jobs that were created before a time and that nobody works on: nobody holds the writer's lock.

        Returns: False, and nothing is ended, while somebody holds it. The worker of a service that was killed does for
        a moment longer.
        """
        if self._gallery.being_written():
            return False
        for job in self.list():
            if job.finished is None and job.created < before:
                lost = not job.has_result
                self.finish(job.id, error="the service ended while this job ran; start it again" if lost else None)
        return True


class Runner:
    """Starts jobs in processes of their own, which end with this one however it ends."""

    def __init__(self, gallery: Gallery, jobs: Jobs, *, on_done: Callable[[], None], search_device: str) -> None:
        self._gallery, self._jobs, self._on_done = gallery, jobs, on_done
        self._options = ("--search-device", search_device)
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None

    def start(self, kind: str, options: Mapping[str, Any]) -> Job:
        """Start a job of a kind that `service.gallery.tasks` knows. Raises: JobRunningError."""
        job = self._jobs.create(kind, options)
        worker = [sys.executable, "-m", "eigenlens.service.jobs.worker", str(self._gallery.root)]
        command = [*worker, "--job", job.id, *self._options]
        # The worker reads its standard input: when this process ends, even by SIGKILL, the pipe closes and so does it.
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        except OSError as error:
            self._jobs.finish(job.id, error=f"no process could be started: {error.strerror}")
            return self._jobs.get(job.id)
        self._watcher = threading.Thread(target=self._watch, args=(job.id, self._process), daemon=True)
        self._watcher.start()
        return job

    def close(self) -> None:
        """End a job that is running; it leaves nothing half done."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        if self._watcher is not None:
            self._watcher.join(timeout=10)

    def _watch(self, job_id: str, process: subprocess.Popen[bytes]) -> None:
        status = process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self._on_done()
        lost = not self._jobs.get(job_id).has_result
        problem = f"the job's process ended with status {status}; see the service's log"
        self._jobs.finish(job_id, error=problem if lost else None)


def _job(row: tuple[Any, ...]) -> Job:
    fields = list(row)
    fields[6] = json.loads(fields[6])
    fields[11] = None if fields[11] is None else json.loads(fields[11])
    return Job(*fields)


def now() -> str:
    """The present time as jobs note it; such times compare as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

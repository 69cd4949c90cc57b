"""Records of jobs, such as a rebuild, in the gallery's database."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from eigenlens.service.errors import JobEndedError, JobNotFoundError, JobRunningError
from eigenlens.service.gallery.layout import Gallery

# A job is recorded as ended a moment before its process has ended and given up the lock.
_ENDING_S = 10.0
_LOCK_POLL_S = 0.02

State = Literal["queued", "running", "cancelling", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        stage, done, total: progress: the present stage, its items done, and its number of items.
        generation: number of the generation that the job published; None if it published none.
        result: other results of the job, such as the number of images that it imported; None without any.
        created, finished: times in ISO format, UTC; `finished` is None until it ends.
    """

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
        """Whether the job has reached its result."""
        return self.generation is not None or self.result is not None


class Jobs:
    """The jobs of one gallery, as every process that serves it sees them.

    jobs = Jobs(gallery)
    job = jobs.create("rebuild", {"lengths": [8, 16]})
    """

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
        """Return one job. Raises: JobNotFoundError."""
        rows = self._store.query("SELECT * FROM jobs WHERE id = ?", (job_id,))
        if not rows:
            raise JobNotFoundError(f"there is no job '{job_id}'")
        return _job(rows[0])

    def list(self) -> list[Job]:
        """Return the last hundred jobs, newest first."""
        return [_job(row) for row in self._store.query("SELECT * FROM jobs ORDER BY rowid DESC LIMIT 100")]

    def progress(self, job_id: str, *, stage: str, done: int, total: int) -> None:
        """Record the progress of a running job: `done` of `total` items of a stage."""
        with self._store.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = CASE state WHEN 'queued' THEN 'running' ELSE state END, "
                "stage = ?, done = ?, total = ? WHERE id = ?",
                (stage, done, total, job_id),
            )

    def cancel(self, job_id: str) -> Job:
        """Mark a job to be cancelled; its process notices this and ends. Raises: JobEndedError."""
        with self._store.transaction() as connection:
            updated = connection.execute(
                "UPDATE jobs SET state = 'cancelling' WHERE id = ? AND finished IS NULL "
                "AND generation IS NULL AND result IS NULL",
                (job_id,),
            )
        job = self.get(job_id)
        if updated.rowcount == 0:
            raise JobEndedError(f"job {job_id} has ended ({job.state}) and cannot be cancelled")
        return job

    def record_generation(self, job_id: str, generation: int) -> None:
        """Record the generation that a job built; the job is done only when the service has switched to it."""
        with self._store.transaction() as connection:
            connection.execute("UPDATE jobs SET generation = ? WHERE id = ?", (generation, job_id))

    def record_result(self, job_id: str, result: Mapping[str, Any]) -> None:
        """Record what a job did other than to publish a generation."""
        with self._store.transaction() as connection:
            connection.execute("UPDATE jobs SET result = ? WHERE id = ?", (json.dumps(result), job_id))

    def finish(self, job_id: str, *, error: str | None = None) -> None:
        """Record the end of a job, unless it is recorded already: done, failed with an error, or cancelled."""
        state = "done" if error is None else "failed"
        if error is not None and self.get(job_id).state == "cancelling":
            state, error = "cancelled", None
        with self._store.transaction() as connection:
            connection.execute(
                "UPDATE jobs SET state = ?, error = ?, finished = ? WHERE id = ? AND finished IS NULL",
                (state, error, now(), job_id),
            )

    def take(self) -> int:
        """Take the lock of a job that is about to be created, and end jobs that were left behind: nobody has it.

        Returns: a file descriptor; the job lasts until it and its copies in other processes are closed.

        Raises: JobRunningError.
        """
        deadline = time.monotonic() + _ENDING_S
        while (lock := self._gallery.try_job_lock()) is None:
            active = next((job.id for job in self.list() if job.finished is None), None)
            if active is not None:
                raise JobRunningError(f"job {active} is running already; wait for it to end")
            if time.monotonic() >= deadline:
                raise JobRunningError("the process of the last job is still ending; try again in a moment")
            time.sleep(_LOCK_POLL_S)
        self._end_abandoned()
        return lock

    def fail_abandoned(self) -> bool:
        """End jobs that a killed service left behind. Whose a job is, is told by its lock and never by the clock.

        Returns: False, and nothing is ended, while a job runs. The worker of a service that was killed does for a
            moment longer.
        """
        if self._gallery.store.read_only:
            return True
        lock = self._gallery.try_job_lock()
        if lock is None:
            return False
        try:
            self._end_abandoned()
        finally:
            os.close(lock)
        return True

    def _end_abandoned(self) -> None:
        for job in self.list():
            if job.finished is None:
                lost = not job.has_result
                self.finish(job.id, error="the service ended while this job ran; start it again" if lost else None)


def _job(row: sqlite3.Row) -> Job:
    result = row["result"]
    return Job(
        id=row["id"],
        kind=row["kind"],
        state=row["state"],
        stage=row["stage"],
        done=row["done"],
        total=row["total"],
        options=json.loads(row["options"]),
        error=row["error"],
        generation=row["generation"],
        created=row["created"],
        finished=row["finished"],
        result=None if result is None else json.loads(result),
    )


def now() -> str:
    """Return the present time as jobs record it: ISO format, UTC, milliseconds; such times compare as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

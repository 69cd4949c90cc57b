"""Which job may run, and how jobs end: their records are in the gallery's store."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from eigenlens.service.errors import JobEndedError, JobNotFoundError, JobRunningError
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.store.locks import Lock
from eigenlens.service.gallery.store.records import Job

# A job is recorded as ended a moment before its process has ended and given up the lock.
_ENDING_S = 10.0
_LOCK_POLL_S = 0.02
_LISTED = 100


class Jobs:
    """The jobs of one gallery, as every process that serves it sees them.

    jobs = Jobs(gallery)
    job = jobs.create("rebuild", {"lengths": [8, 16]})
    """

    def __init__(self, gallery: Gallery) -> None:
        self._store = gallery.store

    def create(self, kind: str, options: Mapping[str, Any]) -> Job:
        """Record a new job. Raises: JobRunningError, if one is queued or running."""
        job = Job(
            id=uuid.uuid4().hex[:12],
            kind=kind,
            state="queued",
            stage="",
            done=0,
            total=0,
            options=dict(options),
            error=None,
            generation=None,
            created=now(),
            finished=None,
            result=None,
        )
        active = self._store.create_job(job)
        if active is not None:
            raise JobRunningError(f"job {active} is running already; wait for it to end")
        return job

    def get(self, job_id: str) -> Job:
        """Return one job. Raises: JobNotFoundError."""
        job = self._store.job(job_id)
        if job is None:
            raise JobNotFoundError(f"there is no job '{job_id}'")
        return job

    def list(self) -> list[Job]:
        """Return the last hundred jobs, newest first."""
        return self._store.jobs(_LISTED)

    def progress(self, job_id: str, *, stage: str, done: int, total: int) -> None:
        """Record the progress of a running job: `done` of `total` items of a stage."""
        self._store.record_progress(job_id, stage=stage, done=done, total=total)

    def cancel(self, job_id: str) -> Job:
        """Mark a job to be cancelled; its process notices this and ends. Raises: JobEndedError."""
        cancelled = self._store.cancel_job(job_id)
        job = self.get(job_id)
        if not cancelled:
            raise JobEndedError(f"job {job_id} has ended ({job.state}) and cannot be cancelled")
        return job

    def record_generation(self, job_id: str, generation: int) -> None:
        """Record the generation that a job built; the job is done only when the service has switched to it."""
        self._store.record_generation(job_id, generation)

    def record_result(self, job_id: str, result: Mapping[str, Any]) -> None:
        """Record what a job did other than to publish a generation."""
        self._store.record_result(job_id, result)

    def finish(self, job_id: str, *, error: str | None = None) -> None:
        """Record the end of a job, unless it is recorded already: done, failed with an error, or cancelled."""
        state = "done" if error is None else "failed"
        if error is not None and self.get(job_id).state == "cancelling":
            state, error = "cancelled", None
        self._store.finish_job(job_id, state=state, error=error, finished=now())

    def take(self) -> Lock:
        """Take the lock of a job that is about to be created, and end jobs that were left behind: nobody has it.

        Returns: the lock, which the job's process shares; the job lasts until both have closed it.

        Raises: JobRunningError.
        """
        deadline = time.monotonic() + _ENDING_S
        while (lock := self._store.lock("job")) is None:
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
        if self._store.read_only:
            return True
        lock = self._store.lock("job")
        if lock is None:
            return False
        try:
            self._end_abandoned()
        finally:
            lock.close()
        return True

    def _end_abandoned(self) -> None:
        for job in self.list():
            if job.finished is None:
                lost = not job.has_result
                self.finish(job.id, error="the service ended while this job ran; start it again" if lost else None)


def now() -> str:
    """Return the present time as jobs record it: ISO format, UTC, milliseconds; such times compare as text."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

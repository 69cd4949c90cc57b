"""The statements of a store about jobs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from eigenlens.service.gallery.store.records import Job
from eigenlens.service.gallery.store.sql import Database, Row

_JOB = "id, kind, state, stage, done, total, options, error, generation, created, finished, result"


class JobStatements(Database):
    """Jobs in the table `jobs`; its column `rowid` numbers them in the order in which they were created."""

    def create_job(self, job: Job) -> str | None:
        """Record a new job, unless one has not ended. Returns: the id of that one; None, if the job was recorded."""
        with self.transaction() as connection:
            active = connection.execute("SELECT id FROM jobs WHERE finished IS NULL").fetchone()
            if active is not None:
                return str(active[0])
            connection.execute(
                "INSERT INTO jobs (id, kind, state, options, created) VALUES (?, ?, ?, ?, ?)",
                (job.id, job.kind, job.state, json.dumps(job.options), job.created),
            )
        return None

    def job(self, id: str) -> Job | None:
        """Return one job; None, if there is no such."""
        if "\0" in id:
            return None
        rows = self.query(f"SELECT {_JOB} FROM jobs WHERE id = ?", (id,))
        return _job(rows[0]) if rows else None

    def jobs(self, limit: int) -> list[Job]:
        """Return the last jobs, newest first."""
        rows = self.query(f"SELECT {_JOB} FROM jobs ORDER BY rowid DESC LIMIT ?", (limit,))
        return [_job(row) for row in rows]

    def record_progress(self, id: str, *, stage: str, done: int, total: int) -> None:
        """Record the progress of a job: `done` of `total` items of a stage. A queued job is running from now on."""
        self._change(
            "UPDATE jobs SET state = CASE state WHEN 'queued' THEN 'running' ELSE state END, "
            "stage = ?, done = ?, total = ? WHERE id = ?",
            (stage, done, total, id),
        )

    def cancel_job(self, id: str) -> bool:
        """Mark a job to be cancelled. Returns: False, if it has ended or reached its result."""
        return bool(
            self._change(
                "UPDATE jobs SET state = 'cancelling' WHERE id = ? AND finished IS NULL "
                "AND generation IS NULL AND result IS NULL",
                (id,),
            )
        )

    def record_generation(self, id: str, generation: int) -> None:
        """Record the generation that a job built."""
        self._change("UPDATE jobs SET generation = ? WHERE id = ?", (generation, id))

    def record_result(self, id: str, result: Mapping[str, Any]) -> None:
        """Record what a job did other than to publish a generation."""
        self._change("UPDATE jobs SET result = ? WHERE id = ?", (json.dumps(result), id))

    def finish_job(self, id: str, *, state: str, error: str | None, finished: str) -> None:
        """Record the end of a job, unless it is recorded already."""
        self._change(
            "UPDATE jobs SET state = ?, error = ?, finished = ? WHERE id = ? AND finished IS NULL",
            (state, error, finished, id),
        )

    def _change(self, sql: str, parameters: tuple[Any, ...]) -> int:
        with self.transaction() as connection:
            return connection.execute(sql, parameters).rowcount


def _job(row: Row) -> Job:
    id, kind, state, stage, done, total, options, error, generation, created, finished, result = row
    return Job(
        id=id,
        kind=kind,
        state=state,
        stage=stage,
        done=done,
        total=total,
        options=json.loads(options),
        error=error,
        generation=generation,
        created=created,
        finished=finished,
        result=None if result is None else json.loads(result),
    )

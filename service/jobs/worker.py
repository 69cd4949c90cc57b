"""The process of a job: does what it was started for and records its progress and its result in the job.

Run by the service as `python -m service.gallery.worker GALLERY --job ID --search-device DEVICE`; ends when its standard
input closes.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from pathlib import Path

from eigenlens.artifact import EigenlensError
from eigenlens.index.faiss_engine.gpu import open_gpu
from eigenlens.service.gallery.build import Progress
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.jobs.store import Jobs
from eigenlens.service.jobs.tasks import TASKS, Task

_RECORD_EVERY_S = 0.2
_NICENESS = 10
# The removal of a generation holds the lock for a moment.
_PATIENCE_S = 1.0


class JobProgress(Progress):
    """Records progress in the jobs table, a few times a second."""

    def __init__(self, jobs: Jobs, job_id: str) -> None:
        self._jobs, self._job_id = jobs, job_id
        self._stage, self._done, self._total, self._recorded = "", 0, 0, 0.0

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        self._stage, self._done, self._total = stage, 0, total
        self._record()

    def advance(self, count: int) -> None:
        """So many more items are done."""
        self._done += count
        if time.monotonic() - self._recorded >= _RECORD_EVERY_S or self._done >= self._total:
            self._record()

    def tell(self, text: str) -> None:
        """Something to know before the next stage."""
        logging.info(text)

    def _record(self) -> None:
        self._jobs.progress(self._job_id, stage=self._stage, done=self._done, total=self._total)
        self._recorded = time.monotonic()


def main() -> int:
    """Do one job; the service ends it when it has switched to the result."""
    parser = argparse.ArgumentParser(description="Do a job of the service, such as a rebuild.")
    parser.add_argument("gallery", type=Path)
    parser.add_argument("--job", required=True)
    parser.add_argument("--search-device", required=True)
    args = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)

    gallery = Gallery(args.gallery)
    jobs = Jobs(gallery)
    job = jobs.get(args.job)
    switching = threading.Lock()
    threading.Thread(target=end_when_cancelled, args=(jobs, job.id, switching), daemon=True).start()
    progress = JobProgress(jobs, job.id)
    try:
        progress.start("open", 0)
        with gallery.writing(wait_s=_PATIENCE_S):
            gpu = open_gpu(args.search_device)
            TASKS[job.kind](Task(gallery, jobs, job.id, job.options, progress, gpu, switching))
    except EigenlensError as error:
        jobs.finish(job.id, error=str(error))
        return 1
    except Exception:
        logging.exception("job %s failed", job.id)
        jobs.finish(job.id, error="the job failed unexpectedly; the service's log has the reason")
        return 1
    return 0


def end_when_cancelled(jobs: Jobs, job_id: str, switching: threading.Lock) -> None:
    """End this process when its job is to be cancelled, unless it has switched already.

    What was begun is left to the next builder to remove. A switch and its note in the job are never cut in two.
    """
    while jobs.get(job_id).state != "cancelling":
        time.sleep(_RECORD_EVERY_S)
    with switching:
        if not jobs.get(job_id).has_result:
            os._exit(4)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns at the end of the pipe; holds no lock, unlike sys.stdin.read
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())

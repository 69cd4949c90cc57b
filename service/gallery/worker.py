"""The process of a rebuild: publishes the next generation and records its progress and its result in the job.

Run by the service as `python -m service.gallery.worker GALLERY --job ID`; ends when its standard input closes.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from pathlib import Path

from artifact import EigenlensError
from model.runtime.encoder import Encoder
from service.gallery.build import Progress, publish_generation
from service.gallery.layout import Gallery
from service.jobs import Jobs
from service.options import parse_kinds, parse_lengths

_RECORD_EVERY_S = 0.2
_NICENESS = 10


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

    def _record(self) -> None:
        self._jobs.progress(self._job_id, stage=self._stage, done=self._done, total=self._total)
        self._recorded = time.monotonic()


def main() -> int:
    """Rebuild once; the service ends the job when it has switched to the result."""
    parser = argparse.ArgumentParser(description="Rebuild a gallery for a job of the service.")
    parser.add_argument("gallery", type=Path)
    parser.add_argument("--job", required=True)
    parser.add_argument("--lengths", type=parse_lengths)
    parser.add_argument("--kinds", type=parse_kinds)
    args = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)

    gallery = Gallery(args.gallery)
    jobs = Jobs(gallery)
    switching = threading.Lock()
    threading.Thread(target=end_when_cancelled, args=(jobs, args.job, switching), daemon=True).start()

    def switch(number: int) -> None:
        with switching:
            gallery.activate(number)
            jobs.published(args.job, number)

    progress = JobProgress(jobs, args.job)
    try:
        progress.start("open", 0)
        with gallery.writing():
            encoder = Encoder(gallery.encoder_path(gallery.current_encoder_id()))
            publish_generation(gallery, encoder, progress, lengths=args.lengths, kinds=args.kinds, switch=switch)
    except EigenlensError as error:
        jobs.finish(args.job, error=str(error))
        return 1
    except Exception:
        logging.exception("the rebuild failed")
        jobs.finish(args.job, error="the rebuild failed unexpectedly; the service's log has the reason")
        return 1
    return 0


def end_when_cancelled(jobs: Jobs, job_id: str, switching: threading.Lock) -> None:
    """End this process when its job is to be cancelled, unless it has switched already.

    What was begun is left to the next builder to remove. A switch and its note in the job are never cut in two.
    """
    while jobs.get(job_id).state != "cancelling":
        time.sleep(_RECORD_EVERY_S)
    with switching:
        if jobs.get(job_id).generation is None:
            os._exit(4)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns at the end of the pipe; holds no lock, unlike sys.stdin.read
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())

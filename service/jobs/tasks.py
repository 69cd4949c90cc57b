"""The work of each kind of job: rebuild, recalibrate, find duplicates, import a folder, restore a backup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.model.images.sources import require_any_image
from eigenlens.model.runtime.open import AnyEncoder, open_encoder
from eigenlens.service.api.report import Report, merge_reports
from eigenlens.service.gallery.build import GenerationOptions, publish_generation
from eigenlens.service.gallery.duplicates import find_duplicates
from eigenlens.service.gallery.folders import known_folders, register_folder
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.limits import Limits
from eigenlens.service.gallery.nodes import require_images
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.recalibrate import QuerySample, publish_recalibrated
from eigenlens.service.gallery.restore import restore_into
from eigenlens.service.gallery.store.records import Folder
from eigenlens.service.gallery.sync import sync_folder
from eigenlens.service.jobs.store import Jobs

_MAX_LISTED = 100


@dataclass(frozen=True)
class Task:
    """A running job.

    Attributes:
        gpu: builds the indexes; the CPU if None.
        payload: bytes that the job was started with, besides its options.
        commit_lock: held while the job's irrevocable step happens and is recorded, so no cancellation comes between.
    """

    gallery: Gallery
    jobs: Jobs
    job_id: str
    options: Mapping[str, Any]
    progress: Progress
    gpu: Gpu | None
    payload: bytes
    commit_lock: AbstractContextManager[Any]

    def encoder(self) -> AnyEncoder:
        """Return the encoder that the options name, or that of the current generation."""
        return open_encoder(self.gallery.encoder_path(self.options.get("encoder") or self.gallery.current_encoder_id()))

    def publish(self) -> None:
        """Build the next generation and switch to it."""
        kinds = {int(length): kind for length, kind in self.options.get("kinds", {}).items()}
        options = GenerationOptions(
            lengths=self.options.get("lengths"), kinds=kinds, optimise=self.options.get("optimise"), gpu=self.gpu
        )
        publish_generation(self.gallery, self.encoder(), self.progress, options, activate=self.activate)

    def record_result(self, result: Mapping[str, Any]) -> None:
        """Record the results of the job, besides a generation."""
        self.jobs.record_result(self.job_id, result)

    def activate(self, number: int) -> None:
        """Switch to a generation and record it in the job."""
        with self.commit_lock:
            self.gallery.activate(number)
            self.jobs.record_generation(self.job_id, number)


def rebuild(task: Task) -> None:
    """Build the next generation. Options: lengths, kinds, optimise, encoder."""
    task.publish()


def recalibrate(task: Task) -> None:
    """Measure the plans of the current generation again. The payload is a sample of queries; it has no options."""
    queries = QuerySample.from_bytes(task.payload)
    publish_recalibrated(task.gallery, queries, task.progress, gpu=task.gpu, activate=task.activate)


def duplicates(task: Task) -> None:
    """Find the duplicates of the gallery and keep them. Options: cosine."""
    task.record_result(find_duplicates(task.gallery, cosine=task.options["cosine"], progress=task.progress))


def import_folder(task: Task) -> None:
    """Take in a folder of the server, or bring the gallery in step with it. Options: folder, root, name, rebuild.

    Files that a symbolic link leads to outside of the root are skipped.
    """
    path, root = Path(task.options["folder"]), Path(task.options["root"])
    require_any_image(path)
    folder = register_folder(task.gallery.store, path, name=task.options.get("name"), boundary=root)
    task.record_result(result_of(_sync(task, folder)))
    if task.options.get("rebuild"):
        task.publish()


def sync(task: Task) -> None:
    """Bring the gallery in step with its folders. Options: name, dry_run, rebuild."""
    dry_run = bool(task.options.get("dry_run"))
    folders = known_folders(task.gallery.store, name=task.options.get("name"))
    task.record_result(result_of(merge_reports([_sync(task, folder, dry_run=dry_run) for folder in folders])))
    if task.options.get("rebuild") and not dry_run:
        task.publish()


def _sync(task: Task, folder: Folder, *, dry_run: bool = False) -> Report:
    encoder, limits = require_images(task.encoder()), Limits.of(task.options)
    return sync_folder(task.gallery, encoder, folder, task.progress, limits=limits, dry_run=dry_run)


def result_of(report: Report) -> dict[str, Any]:
    """Return a report as the result of a job, with the first entries of its lists."""
    members = report.shortened(_MAX_LISTED).model_dump(exclude={"failed"})
    reasons = [entry.model_dump() for entry in report.failed[:_MAX_LISTED]]
    return {"report": report.sentence(), **members, "failed": len(report.failed), "reasons": reasons}


def restore(task: Task) -> None:
    """Make the gallery's images those of a backup. Options: backup, rebuild."""
    with restore_into(task.gallery, Path(task.options["backup"]), task.progress) as apply, task.commit_lock:
        task.record_result(apply())
    if task.options.get("rebuild"):
        task.publish()


TASKS: dict[str, Callable[[Task], None]] = {
    "rebuild": rebuild,
    "recalibrate": recalibrate,
    "duplicates": duplicates,
    "import": import_folder,
    "restore": restore,
    "sync": sync,
}

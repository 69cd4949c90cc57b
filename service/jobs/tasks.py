"""What jobs do, each in a process of its own: rebuild, take a folder of the server's in, restore a backup."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eigenlens.index.faiss_engine.gpu import Gpu
from eigenlens.model.images.sources import FolderSource, SourceImage
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.gallery.build import Progress, add_images, publish_generation
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.restore import restore_into
from eigenlens.service.jobs.store import Jobs

_REASONS = 100


@dataclass(frozen=True)
class Task:
    """A job that runs.

    Attributes:
        gpu: for indexes; the CPU when None.
        switching: held while what cannot be taken back happens and is noted in the job; no cancellation falls between.
    """

    gallery: Gallery
    jobs: Jobs
    job_id: str
    options: Mapping[str, Any]
    progress: Progress
    gpu: Gpu | None
    switching: AbstractContextManager[Any]

    def encoder(self) -> Encoder:
        """The one that is asked for, or that of the current generation."""
        return Encoder(self.gallery.encoder_path(self.options.get("encoder") or self.gallery.current_encoder_id()))

    def publish(self) -> None:
        """Build the next generation and switch to it."""
        kinds = {int(length): kind for length, kind in self.options.get("kinds", {}).items()}
        publish_generation(
            self.gallery,
            self.encoder(),
            self.progress,
            lengths=self.options.get("lengths"),
            kinds=kinds,
            gpu=self.gpu,
            switch=self._switch,
        )

    def _switch(self, number: int) -> None:
        with self.switching:
            self.gallery.activate(number)
            self.jobs.published(self.job_id, number)


def rebuild(task: Task) -> None:
    """Options: lengths, kinds, encoder."""
    task.publish()


def import_folder(task: Task) -> None:
    """Options: folder, root, rebuild. Files that lie outside of the root, by a symbolic link, are left out."""
    source = _Within(FolderSource(Path(task.options["folder"])), Path(task.options["root"]))
    report = add_images(task.gallery, task.encoder(), source, task.progress)
    failed = [{"id": id, "reason": reason} for id, reason in report.failed[:_REASONS]]
    counts = {"added": report.added, "unchanged": report.unchanged, "failed": len(report.failed)}
    task.jobs.did(task.job_id, {**counts, "reasons": failed})
    if task.options.get("rebuild"):
        task.publish()


def restore(task: Task) -> None:
    """Options: backup, rebuild."""
    with restore_into(task.gallery, Path(task.options["backup"]), task.progress) as apply, task.switching:
        task.jobs.did(task.job_id, apply())
    if task.options.get("rebuild"):
        task.publish()


TASKS: dict[str, Callable[[Task], None]] = {"rebuild": rebuild, "import": import_folder, "restore": restore}


class _Within:
    """A source of which only what lies below a root is taken."""

    def __init__(self, source: FolderSource, root: Path) -> None:
        self.name = source.name
        self._source, self._root = source, root.resolve()

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[SourceImage]:
        for image in self._source:
            if image.path is not None and not image.path.is_relative_to(self._root):
                image = replace(
                    image, data=b"", path=None, problem="the file lies outside of the server's image folder"
                )
            yield image

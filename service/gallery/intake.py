"""Intake: the images of a SOURCE argument as images of a gallery; a folder that is known already is brought in step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eigenlens.model.images.sources import TarSource, open_source, require_any_image
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.service.api.report import Report
from eigenlens.service.gallery.folders import register_folder
from eigenlens.service.gallery.ingest import add_images
from eigenlens.service.gallery.layout import Gallery
from eigenlens.service.gallery.limits import DEFAULT_LIMITS, Limits
from eigenlens.service.gallery.progress import Progress
from eigenlens.service.gallery.sync import sync_folder


@dataclass(frozen=True)
class Images:
    """A SOURCE argument: a folder, a tar of one, or a sample; with the name that begins the ids, if one was given."""

    source: str
    name: str | None = None
    follow_links: bool = False
    limits: Limits = DEFAULT_LIMITS

    @property
    def path(self) -> Path | None:
        """The folder or the archive; None for a sample."""
        path = Path(self.source).expanduser()
        return path if path.exists() else None

    def check(self) -> None:
        """Check that there is something to add, before a gallery is made. Raises: SourceError."""
        if self.path is None:
            open_source(self.source)
        else:
            require_any_image(self.path, follow_links=self.follow_links)


def add_source(gallery: Gallery, encoder: Encoder, images: Images, progress: Progress) -> Report:
    """Add the images of a SOURCE to a gallery; the caller holds the writer's lock. Raises: SourceError; FolderError."""
    path, limits = images.path, images.limits
    if path is None:
        return add_images(gallery, encoder, open_source(images.source), progress, max_pixels=limits.max_pixels)
    kind = "folder" if path.is_dir() else "archive"
    folder = register_folder(gallery.store, path, name=images.name, follow_links=images.follow_links, kind=kind)
    if kind == "folder":
        return sync_folder(gallery, encoder, folder, progress, limits=limits)
    archive = TarSource(path, prefix=folder.prefix, max_bytes=limits.max_image_bytes)
    return add_images(gallery, encoder, archive, progress, max_pixels=limits.max_pixels)

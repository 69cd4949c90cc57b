"""Which files of a folder or an archive are images, for the code that builds galleries and for the client alike."""

from __future__ import annotations

from pathlib import PurePath

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def is_image_path(relative: PurePath) -> bool:
    """Return whether a path below a folder has an image's extension and neither it nor a folder of it is hidden."""
    return relative.suffix.lower() in IMAGE_EXTENSIONS and not any(part.startswith(".") for part in relative.parts)

"""The limits of an image, the same wherever one comes in: in a search, an upload, a build, an import and a sync."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from eigenlens.model.images.decode import DEFAULT_MAX_PIXELS
from eigenlens.model.images.sources import DEFAULT_MAX_IMAGE_BYTES


@dataclass(frozen=True)
class Limits:
    """The largest image that is taken."""

    max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES
    max_pixels: int = DEFAULT_MAX_PIXELS

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Limits:
        """Return the limits among the options of a job; the defaults for a job of an earlier version."""
        return cls(**options.get("limits", {}))

    def to_json(self) -> dict[str, int]:
        """Return the limits as the option `limits` of a job."""
        return asdict(self)


DEFAULT_LIMITS = Limits()

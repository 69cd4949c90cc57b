"""Errors of the model package."""

from __future__ import annotations

from eigenlens.artifact import EigenlensError


class ModelError(EigenlensError):
    """Root of the model package's errors."""


class ShapeError(ModelError, ValueError):
    """Arrays have shapes that do not fit together."""


class ConfigError(ModelError, ValueError):
    """A training configuration names something that does not exist or cannot work."""


class SourceError(ModelError, ValueError):
    """A SOURCE of images cannot be read or holds no usable image."""


class ImageError(ModelError, ValueError):
    """Bytes cannot be used as an image; the message says why."""


class NotAnImageError(ImageError):
    """Bytes are of no image format that can be read."""


class ImageTooLargeError(ImageError):
    """An image has more pixels than the limit; it was refused before it was decoded."""


class TrainingError(ModelError, RuntimeError):
    """Training cannot go on; the message says what to change."""


class EncoderError(ModelError, RuntimeError):
    """An encoder cannot be loaded or exported."""

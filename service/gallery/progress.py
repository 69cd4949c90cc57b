"""The progress of a build, in stages."""

from __future__ import annotations


class Progress:
    """Receives the progress of a build and ignores it; subclasses show or record it.

    `advance` may raise to stop the build between two batches.
    """

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of `total` items: 'take in', 'encode', 'assemble' or 'index'."""

    def advance(self, count: int) -> None:
        """Count `count` more items of the stage as done."""

    def log(self, text: str) -> None:
        """Show a message between two stages."""

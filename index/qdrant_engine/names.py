"""Names of collections: the word of a gallery and the number of a generation, since a Qdrant serves many galleries."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eigenlens import artifact

_FILE = "COLLECTIONS"


@dataclass(frozen=True)
class CollectionNames:
    """Names collections after a word that the gallery keeps in a file.

    Attributes:
        root: directory of the gallery.
    """

    root: Path

    @property
    def is_used(self) -> bool:
        """Whether the gallery ever had a collection."""
        return (self.root / _FILE).exists()

    def of(self, number: int) -> str:
        """Return the name of a generation's collection; the first call makes the word up."""
        if not self.is_used:
            readable = re.sub("[^a-z0-9]+", "-", self.root.resolve().name.lower()).strip("-")[:40]
            artifact.write_atomic(self.root / _FILE, f"{readable or 'gallery'}-{secrets.token_hex(4)}".encode())
        return f"{self._word}-{number:06d}"

    def among(self, names: Iterable[str]) -> list[str]:
        """Return those names that are of this gallery's collections."""
        return [name for name in names if re.fullmatch(re.escape(self._word) + "-[0-9]+", name)]

    @property
    def _word(self) -> str:
        return (self.root / _FILE).read_text()

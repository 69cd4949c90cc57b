"""What was added to and removed from a gallery since its generation was built, applied to an engine."""

from __future__ import annotations

import numpy as np

from eigenlens.index.engine import Engine
from eigenlens.service.gallery.store.records import Changes


def apply_to_engine(changes: Changes, engine: Engine) -> None:
    """Add and remove what changed; an image without a code is left out."""
    added = [
        (key, code, metadata)
        for key, code, metadata in zip(changes.keys, changes.codes, changes.metadata, strict=True)
        if code is not None
    ]
    if added:
        keys, codes, metadata = zip(*added, strict=True)
        engine.add(keys, np.stack(codes), metadata)
    if changes.removed:
        engine.remove(changes.removed)

"""What a generation says of its codes, whichever engine searches them: similarities, typicality and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eigenlens.index.building.nearest_others import measure_similarities
from eigenlens.index.codes.artifact import Codes
from eigenlens.index.codes.typicality import write_typicality
from eigenlens.index.filters.columns import write_attributes


def describe_codes(
    directory: Path,
    codes: Codes,
    properties: dict[str, Any],
    *,
    lengths: Sequence[int],
    metadata: Iterable[Mapping[str, Any]],
) -> None:
    """Measure how near codes are to their nearest others and how far out they lie, and write columns to filter by.

    Args:
        directory: of the generation that is being built.
        properties: of its manifest, which get the similarities.
        metadata: of the images, in the order of rows; read once.
    """
    similarities = measure_similarities(codes, lengths=lengths)
    properties["similarities"] = None if similarities is None else similarities.to_json()
    write_typicality(directory, codes)
    write_attributes(directory, metadata)

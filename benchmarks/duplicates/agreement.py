"""How well groups of duplicates agree with those that were planted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from eigenlens.benchmarks.duplicates.planted import CHANGES, ORIGINAL

SINGLE = "single"


def agreement(groups: Sequence[Sequence[str]], planted: int) -> dict[str, float]:
    """Return shares by name, from the groups' images, named as `write_planted` does, and the number of planted groups.

    Returns: `precision`: groups that hold images of one planted group only, of all groups. `recall`: planted groups of
        which two images or more are in one group. `whole`: planted groups that are in one group with all their images.
        By change, `recall NAME`: of the copies with this change, those in a group with their original.
    """
    pure = found = whole = 0
    with_original: dict[str, set[int]] = {name: set() for name in CHANGES}
    touched: set[int] = set()
    for group in groups:
        images: dict[int, set[str]] = {}
        for name in group:
            first, _, change = PurePosixPath(name).stem.partition("-")
            images.setdefault(int(first), set()).add(change)
        pure += len(images) == 1
        for number, changes in images.items():
            if changes == {SINGLE}:
                continue
            if len(changes) > 1:
                touched.add(number)
            whole += len(changes) == 1 + len(CHANGES)
            if ORIGINAL in changes:
                for change in changes - {ORIGINAL}:
                    with_original[change].add(number)
    found = len(touched)
    return {
        "precision": pure / max(1, len(groups)),
        "recall": found / planted,
        "whole": whole / planted,
        **{f"recall {name}": len(numbers) / planted for name, numbers in with_original.items()},
    }

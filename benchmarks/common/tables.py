"""What several tables share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]
NO_RECORD = "No record yet."


def spread(values: list[float]) -> str:
    """Format the mean of values and, where there are several, half their range; a dash where there is none."""
    if not values:
        return "–"
    mean = sum(values) / len(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ±{(max(values) - min(values)) / 2:.3f}"

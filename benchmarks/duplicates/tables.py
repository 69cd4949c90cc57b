"""The table of which planted duplicates are found, from the records."""

from __future__ import annotations

from collections.abc import Sequence

from eigenlens.benchmarks.common.tables import NO_RECORD, Record
from eigenlens.benchmarks.duplicates.planted import CHANGES


def planted_table(records: Sequence[Record]) -> str:
    """Draw a Markdown table: by data and threshold, the precision of groups and the share found of each change."""
    newest: dict[tuple[str, float], dict[str, float]] = {}
    for record in records:
        if record["method"] == "gallery":
            newest.setdefault((record["data"], record["params"]["cosine"]), {})[record["metric"]] = record["value"]
    if not newest:
        return NO_RECORD
    lines = ["| images | cosine | precision | " + " | ".join(CHANGES) + " |", "|---" * (3 + len(CHANGES)) + "|"]
    for (data, cosine), values in sorted(newest.items()):
        shares = [values["precision"], *(values[f"recall {name}"] for name in CHANGES)]
        lines.append(f"| {data} | {cosine:g} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")
    return "\n".join(lines)

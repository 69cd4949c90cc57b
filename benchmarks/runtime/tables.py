"""A table of inference runtimes, from the records."""

from __future__ import annotations

from collections.abc import Sequence

from eigenlens.benchmarks.common.tables import NO_RECORD, Record


def runtime_table(records: Sequence[Record]) -> str:
    """Draw a table of runtimes: images a second, and mean average precision of some lengths where it was measured."""
    by_method: dict[str, dict[tuple[str, int], float]] = {}
    for record in records:
        at = record["params"].get("batch") or record["length"]
        by_method.setdefault(record["method"], {})[record["metric"], at] = record["value"]
    if not by_method:
        return NO_RECORD
    lengths = sorted({at for values in by_method.values() for metric, at in values if metric.startswith("mAP")})
    shown = sorted({*lengths[1:4:2], *lengths[-1:]})
    heads = ["runtime", "batch of 1", "batch of 16", *(f"mAP@100, length {length}" for length in shown)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for method, values in by_method.items():
        speeds = [f"{values['images_per_s', batch]:,.0f}/s" for batch in (1, 16)]
        quality = [f"{values['mAP@100', n]:.4f}" if ("mAP@100", n) in values else "–" for n in shown]
        lines.append("| " + " | ".join([method, *speeds, *quality]) + " |")
    return "\n".join(lines)

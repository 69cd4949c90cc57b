"""Tables of what was measured on a GPU, from the records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from eigenlens.benchmarks.common.tables import Record

_KINDS = {"flat": "`flat`, 256 coordinates", "ivf": "`ivf`, 64 coordinates", "ivf-sq8": "`ivf-sq8`, 64, rescored"}
_BATCHES = (1, 32, 1000)
_STEP_PARAMS = ("backbone", "image_size", "batch_size", "precision", "compile")


def gpu_steps_table(records: Sequence[Record]) -> str:
    """Draw a Markdown table of a training step's time on the GPU, the newest of each network; empty without any."""
    newest: dict[tuple[Any, ...], dict[str, float]] = {}
    for record in _measured(records, "steps"):
        key = tuple(record["params"][name] for name in _STEP_PARAMS)
        newest.setdefault(key, {})[record["metric"]] = record["value"]
    head = (
        "| network | batch | precision | images/s | relative to the bare network | memory |\n|---|---|---|---|---|---|"
    )
    rows = [
        f"| {backbone}, {side} px{', compiled' if compiled else ''} | {batch} | {precision} | "
        f"{values['images_per_s']:,.0f} | {values['of bare']:.2f} | {values['peak_memory']:.1f} GiB |"
        for (backbone, side, batch, precision, compiled), values in newest.items()
    ]
    return "\n".join([head, *rows]) if rows else ""


def gpu_search_table(records: Sequence[Record]) -> str:
    """Draw a Markdown table of queries a second on the GPU and on its machine's CPU, by batch size."""
    newest: dict[tuple[str, Any], dict[tuple[int, str], float]] = {}
    for record in _measured(records, "faiss"):
        if record["metric"] == "queries_per_s":
            params = record["params"]
            row = newest.setdefault((params["kind"], params["effort"]), {})
            row[params["batch"], params["where"]] = record["value"]
    titles = " | ".join(f"{batch:,} at once" for batch in _BATCHES)
    lines = [f"| index of 1,000,000 codes | lists visited | {titles} |", "|---|---|" + "---|" * len(_BATCHES)]
    for (kind, effort), rates in newest.items():
        cells = " | ".join(f"{rates[batch, 'gpu']:,.0f} ({rates[batch, 'cpu']:,.0f})" for batch in _BATCHES)
        lines.append(f"| {_KINDS[kind]} | {effort or 'all'} | {cells} |")
    return "\n".join(lines) if newest else ""


def _measured(records: Iterable[Record], part: str) -> list[Record]:
    """Return the records of a part that were measured on a GPU."""
    return [r for r in records if r["method"] == part and "driver" in r["params"]["on"]]

"""Tables of the service's throughput and latency, from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eigenlens.benchmarks.common.tables import NO_RECORD, Record


def closed_table(records: Sequence[Record]) -> str:
    """Photographs and clients by method: searches a second, and latency percentiles of the service."""
    newest = _newest(records, loads=("closed",))
    of_photographs = {key[1:] for key in newest if key[2] in _SIZES}
    cells = sorted(of_photographs, key=lambda cell: (cell[0], _SIZES.index(cell[1]), cell[3]))
    if not cells:
        return NO_RECORD
    lines = [
        "| gallery | photographs | clients | limit of the cores | Eigenlens | plain FastAPI "
        "| p50 / p95 / p99 of Eigenlens | batch |",
        "|---" * 8 + "|",
    ]
    for cell in cells:
        ours, limit, plain = (newest.get((name, *cell), {}) for name in ("eigenlens", "in-process", "plain-fastapi"))
        lines.append(
            f"| {cell[0]} | {cell[1]} | {cell[3]} | {_rate(limit)} | {_rate(ours)} | {_rate(plain)} | {_latency(ours)} "
            f"| {ours.get('batch_mean', 1):.3g} |"
        )
    return "\n".join(lines)


def open_table(records: Sequence[Record]) -> str:
    """Searches that come at random moments, whether or not earlier ones were answered."""
    newest = _newest(records, loads=("open", "overload"))
    if not newest:
        return NO_RECORD
    lines = [
        "| gallery | photographs | load | sent | answered | refused (429) | p50 / p95 / p99 of the answered | memory |",
        "|---" * 8 + "|",
    ]
    for key, values in sorted(newest.items(), key=lambda item: (item[0][1], _SIZES.index(item[0][2]), item[0][3])):
        _, data, photo, *_ = key
        params = values["params"]
        statuses, seconds = params["statuses"], params["seconds"] * params["rounds"]
        sent, refused = sum(statuses.values()), statuses.get("429", 0)
        share = f"{params['share']:.0%}" if params["share"] < 1 else f"{params['share']} times"
        lines.append(
            f"| {data} | {photo} | {share} | {sent / seconds:,.0f}/s | {values['throughput_rps']:,.0f}/s "
            f"| {refused / max(1, sent):.0%} | {_latency(values)} "
            f"| {values['memory_mb']:,.0f} MB {values['memory_growth_mb']:+.1f} |"
        )
    return "\n".join(lines)


def light_table(records: Sequence[Record]) -> str:
    """Draw searches that encode nothing: by an id, a code, or 100 codes in each request."""
    newest = {key: values for key, values in _newest(records, loads=("closed",)).items() if key[2] in _KINDS}
    if not newest:
        return NO_RECORD
    columns = "gallery | searches by | processes | clients | answered | refused | of a core, each"
    lines = [f"| {columns} | p50 / p95 / p99 of a request |", "|---" * 8 + "|"]
    for key in sorted(newest, key=lambda key: (key[1], list(_KINDS).index(key[2]), key[4:])):
        values = newest[key]
        _, data, kind, _, clients, workers = key
        params = values["params"]
        answered = values["throughput_rps"] * params["seconds"] * params["rounds"]
        failed = params["failed"] / max(1.0, params["failed"] + answered)
        lines.append(
            f"| {data} | {_KINDS[kind]} | {workers} | {clients} | {_rate(values)} | {failed:.0%} "
            f"| {values['cpu_ms']:.3f} ms | {_latency(values)} |"
        )
    return "\n".join(lines)


def workers_of(record: Record) -> int:
    """Return how many processes the service had; earlier records do not say: one."""
    return int(record["params"].get("workers", 1))


_SIZES = ("200px", "1mp", "12mp")
_KINDS = {"id": "an id", "code": "a code", "codes": "100 codes"}


def _newest(records: Sequence[Record], *, loads: Sequence[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Metrics, and the params, of each method, gallery, size, load, concurrency and number of processes; the newest."""
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        params = record["params"]
        if record["bench"] == "service" and params["load"] in loads:
            place = params["photo"], params["load"], params["concurrency"], workers_of(record)
            key = record["method"], record["data"], *place
            newest.setdefault(key, {})[record["metric"]] = record["value"]
            newest[key]["params"] = params
    return newest


def _rate(values: Mapping[str, Any]) -> str:
    return f"{values['throughput_rps']:,.0f}/s" if values else "–"


def _latency(values: Mapping[str, Any]) -> str:
    shown = [f"{values[name]:.3g}" for name in ("p50_ms", "p95_ms", "p99_ms") if name in values]
    return f"{' / '.join(shown)} ms" if shown else "–"


def gallery_scale_table(records: Sequence[Record]) -> str:
    """Draw the time and the memory of each step of the largest gallery that was taken from shards to answers."""
    values = _of_largest(records)
    lines = ["| step | seconds | of its processor | memory |", "|---|---|---|---|"]
    for step, of_step in values.items():
        if "seconds" in of_step and "memory_mb" in of_step:
            times = f"{of_step['seconds']:,.0f} | {of_step['processor_s']:,.0f}"
            lines.append(f"| {step} | {times} | {of_step['memory_mb']:,.0f} MB |")
    return "\n".join(lines) if values else NO_RECORD


def gallery_bytes_table(records: Sequence[Record]) -> str:
    """Draw the bytes of the parts of that gallery beside what is computed before a build."""
    values = _of_largest(records)
    lines = ["| part | computed | held | of computed |", "|---|---|---|---|"]
    for part, of_part in values.items():
        if "bytes_by_computed" in of_part:
            computed, held = of_part["computed_bytes_per_image"], of_part["bytes_per_image"]
            lines.append(f"| {part} | {computed:.1f} B | {held:.1f} B | {of_part['bytes_by_computed']:.2f} |")
    return "\n".join(lines) if values else NO_RECORD


def _of_largest(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return the newest values of the largest gallery, by step and metric."""
    largest = max((record["params"]["count"] for record in records), default=0)
    values: dict[str, dict[str, float]] = {}
    for record in records:
        if record["params"]["count"] == largest:
            values.setdefault(record["method"], {})[record["metric"]] = record["value"]
    return values

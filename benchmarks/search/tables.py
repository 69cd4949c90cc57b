"""Tables of searches, drawn from the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

K = TypeVar("K", int, str)

SEARCHED = {
    "eigenlens": "**Eigenlens**",
    "flat": "FAISS flat",
    "hnswlib": "hnswlib",
    "svs": "SVS (Vamana)",
    "scann": "ScaNN",
    "faiss-hnsw": "FAISS HNSW",
    "usearch": "USearch",
}


def search_table(records: Sequence[Mapping[str, Any]], *, count: int) -> str:
    """Draw a Markdown table of methods over `count` codes, from the newest records; empty where there is none."""
    newest = _newest((record["method"], record) for record in records if record["params"]["n"] == count)
    if not newest:
        return ""
    lines = [
        "| method | exact | recall@10 0.95 | recall@10 0.99 | build time | memory |",
        "|---" * 6 + "|",
    ]
    for method, name in SEARCHED.items():
        if method not in newest:
            continue
        values = newest[method]
        memory = values.get("memory_bytes 0.99") or values["memory_bytes"]
        cells = [
            _milliseconds(values.get("latency_ms exact"), seen=False),
            _milliseconds(values.get("latency_ms 0.95")),
            _milliseconds(values.get("latency_ms 0.99")),
            f"{values['build_s']['value']:,.0f} s",
            f"{memory['value'] / 1e6:,.0f} MB",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def growth_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Draw a Markdown table of Eigenlens by the number of codes, from the newest records; empty where there is none."""
    newest = _newest((record["params"]["n"], record) for record in records if record["method"] == "eigenlens")
    if not newest:
        return ""
    lines = [
        "| codes | recall@10 0.95 | 0.99 | 0.999 | exact | build time | peak memory of the build |",
        "|---" * 7 + "|",
    ]
    for count, values in sorted(newest.items()):
        cells = [_milliseconds(values.get(f"latency_ms {target}")) for target in (0.95, 0.99, 0.999)]
        cells.append(_milliseconds(values.get("latency_ms exact"), seen=False))
        built = values["build_s"]
        cells += [f"{built['value']:,.0f} s", f"{built['params']['peak_resident_bytes'] / 1e6:,.0f} MB"]
        lines.append(f"| {count:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _newest(records: Iterable[tuple[K, Mapping[str, Any]]]) -> dict[K, dict[str, Mapping[str, Any]]]:
    """The newest record of each row of a table, by metric and what it aims at, such as "latency_ms 0.95"."""
    newest: dict[K, dict[str, Mapping[str, Any]]] = {}
    for row, record in records:
        params = record["params"]
        if not params.get("curve"):
            target = "exact" if params.get("exact") else str(params.get("recall", ""))
            newest.setdefault(row, {})[f"{record['metric']} {target}".strip()] = record
    return newest


def _milliseconds(record: Mapping[str, Any] | None, *, seen: bool = True) -> str:
    if record is None:
        return "–"
    reached = f" ({record['params']['recall_seen']:.3f})" if seen else ""
    return f"{record['value']:.3g} ms{reached}"

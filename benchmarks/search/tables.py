"""Tables of searches, drawn from the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

K = TypeVar("K", str, tuple[int, str])

# "eigenlens" was the name of "eigenlens-memory" until builds had a mode; records from before then have been renamed.
SEARCHED = {
    "eigenlens": "**Eigenlens**",
    "eigenlens-memory": "**Eigenlens**, least memory",
    "eigenlens-build": "**Eigenlens**, shortest build",
    "flat": "FAISS flat",
    "svs+prefix": "SVS (Vamana) over a prefix",
    "hnswlib+prefix": "hnswlib over a prefix",
    "faiss-hnsw+prefix": "FAISS HNSW over a prefix",
    "usearch+prefix": "USearch over a prefix",
    "hnswlib": "hnswlib",
    "svs": "SVS (Vamana)",
    "scann": "ScaNN",
    "faiss-hnsw": "FAISS HNSW",
    "usearch": "USearch",
    "vsag": "VSAG (HGraph)",
}
_TARGETS = (0.95, 0.99, 0.999)
_BATCH_RECALLS = (0.95, 0.99)
# Such a recall has four digits.
_NEARLY_ALL = 0.9985
_PREFIX = "+prefix"
NO_RECORDS = "There are no records of this yet; the command below makes them."


def search_table(records: Sequence[Mapping[str, Any]], *, data: str, count: int) -> str:
    """Draw a Markdown table of methods over `count` codes, from the newest records; empty where there is none."""
    newest = _newest_methods(records, data=data, count=count)
    if not newest:
        return ""
    lines = [
        "| method | exact | recall@10 0.95 | 0.99 | 0.999 | build time | memory |",
        "|---" * 7 + "|",
    ]
    for method, name in SEARCHED.items():
        if method in newest:
            values = newest[method]
            latencies = [_milliseconds(values.get(f"latency_ms {target}")) for target in _TARGETS]
            cells = [_milliseconds(values.get("latency_ms exact"), seen=False), *latencies, *_build_and_memory(values)]
            lines.append(f"| {_with_prefix(name, values)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def codes_table(records: Sequence[Mapping[str, Any]], *, names: Mapping[str, str], count: int) -> str:
    """Draw a Markdown table of Eigenlens and of graphs over a prefix, by kind of codes; without kinds that have none.

    Args:
        names: of the kinds of codes, by the name that the records have.
    """
    lines = ["| codes | method | exact | recall@10 0.95 | 0.99 | 0.999 | build time | memory |", "|---" * 8 + "|"]
    for data, title in names.items():
        newest = _newest_methods(records, data=data, count=count)
        for method, name in SEARCHED.items():
            if method in newest and (method.startswith("eigenlens") or method.endswith(_PREFIX)):
                values = newest[method]
                latencies = [_milliseconds(values.get(f"latency_ms {target}")) for target in _TARGETS]
                cells = [_milliseconds(values.get("latency_ms exact"), seen=False), *latencies]
                cells += _build_and_memory(values)
                lines.append(f"| {title} | {_with_prefix(name, values)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def batch_table(records: Sequence[Mapping[str, Any]], *, data: str, count: int) -> str:
    """Draw a Markdown table of queries a second with all cores, by size of batch and recall; a sentence without any."""
    newest: dict[tuple[str, int, float], Mapping[str, Any]] = {}
    for record in records:
        params = record["params"]
        if record["metric"] == "queries_per_s" and record["data"] == data and params["n"] == count:
            newest[record["method"], params["batch"], params["recall"]] = record
    if not newest:
        return NO_RECORDS
    batches = sorted({batch for _, batch, _ in newest})
    columns = [(recall, batch) for recall in _BATCH_RECALLS for batch in batches]
    titles = [f"{recall}, {'one query' if batch == 1 else f'batches of {batch:,}'}" for recall, batch in columns]
    lines = ["| method | " + " | ".join(titles) + " |", "|---" * (1 + len(columns)) + "|"]
    for method, name in SEARCHED.items():
        row = [newest.get((method, batch, recall)) for recall, batch in columns]
        if any(row):
            cells = ["–" if record is None else f"{record['value']:,.0f}/s" for record in row]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _newest_methods(
    records: Sequence[Mapping[str, Any]], *, data: str, count: int
) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the newest records of each method over the codes that were measured last: those of one encoder."""
    alike = [record for record in records if record["data"] == data and record["params"]["n"] == count]
    return _newest((r["method"], r) for r in alike if r["params"]["encoder"] == alike[-1]["params"]["encoder"])


def _build_and_memory(values: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return cells of the index that reaches 0.99, or of the last target that is reached."""
    build, memory = _at_recall(values, "build_s"), _at_recall(values, "memory_bytes")
    return [f"{build['value']:,.0f} s" if build else "–", f"{memory['value'] / 1e6:,.0f} MB" if memory else "–"]


def _at_recall(values: Mapping[str, Mapping[str, Any]], metric: str) -> Mapping[str, Any] | None:
    targets = [f"{metric} {target}" for target in (0.99, 0.95, 0.9)]
    return next((values[name] for name in (*targets, metric) if name in values), None)


def _with_prefix(name: str, values: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a method's name with the prefixes that it is measured over, in the order of the table's targets."""
    measured = [values.get(f"latency_ms {target}") for target in _TARGETS]
    prefixes = [str(record["params"]["prefix"]) for record in measured if record and "prefix" in record["params"]]
    return name if not prefixes else f"{name.removesuffix(' over a prefix')} over {', '.join(dict.fromkeys(prefixes))}"


def growth_table(records: Sequence[Mapping[str, Any]], *, data: str) -> str:
    """Draw a Markdown table of Eigenlens's modes by the number of codes, from the newest records; empty without any."""
    newest = _newest(
        ((record["params"]["n"], record["method"]), record)
        for record in records
        if record["method"].startswith("eigenlens") and record["data"] == data
    )
    if not newest:
        return ""
    lines = [
        "| codes | recall@10 0.95 | 0.99 | 0.999 | exact | build time | peak memory of the build |",
        "|---" * 7 + "|",
    ]
    for (count, method), values in sorted(newest.items()):
        cells = [_milliseconds(values.get(f"latency_ms {target}")) for target in _TARGETS]
        cells.append(_milliseconds(values.get("latency_ms exact"), seen=False))
        built = values["build_s"]
        cells += [f"{built['value']:,.0f} s", f"{built['params']['peak_resident_bytes'] / 1e6:,.0f} MB"]
        mode = SEARCHED[method].partition(", ")[2]
        lines.append(f"| {count:,}{', ' + mode if mode else ''} | " + " | ".join(cells) + " |")
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
    if not seen:
        return f"{record['value']:.3g} ms"
    recall = record["params"]["recall_seen"]
    return f"{record['value']:.3g} ms ({recall:.{3 if recall < _NEARLY_ALL else 4}f})"


def backends_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Draw recall and median latency of each backend, case by case."""
    cases = dict.fromkeys(
        (r["params"]["plan"], r["params"]["filter"], r["params"]["change"]) for r in records if "plan" in r["params"]
    )
    if not cases:
        return "No record yet."
    names = {"pgvector": "pgvector", "qdrant": "Qdrant"}
    measured = [name for name in names if any(r["method"] == name for r in records)]
    columns = [column for name in measured for column in (f"{names[name]} recall@10", f"{names[name]}'s time")]
    has_engine = any(r["metric"] == "engine_times_faiss" for r in records)
    columns += ["of which in Qdrant's engine"] * has_engine
    lines = [
        f"| search | filter leaves | change | FAISS recall@10 | {' | '.join(columns)} |",
        "|---" * (4 + len(columns)) + "|",
    ]
    for case in cases:
        values = {
            (r["method"], r["metric"]): r["value"]
            for r in records
            if (r["params"].get("plan"), r["params"].get("filter"), r["params"].get("change")) == case
        }
        plan, filter, change = (word if word != "none" else "–" for word in case)
        cells = [f"{values['faiss', 'recall@10']:.3f}"]
        for name in measured:
            recall, times = values.get((name, "recall@10")), values.get((name, "times_faiss"))
            cells += ["–", "–"] if recall is None else [f"{recall:.3f}", f"{times:.1f} times FAISS's"]
        if has_engine:
            engine = values.get(("qdrant", "engine_times_faiss"))
            cells.append("–" if engine is None else f"{engine:.1f} times FAISS's")
        lines.append(f"| {plan} | {filter} | {change} | {' | '.join(cells)} |")
    return "\n".join(lines)

"""Tables of quality by prefix length, from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eigenlens.benchmarks.common.tables import Record, spread

COMPARED = {
    "eigenlens": "**Eigenlens**",
    "eigenlens-features": "Eigenlens, of the features",
    "eigenlens-outputs": "Eigenlens, of the outputs",
    "neural-eigenmap": "Neural Eigenmap, as trained",
    "neural-eigenmap+pca": "Neural Eigenmap + PCA",
    "neural-eigenmap+rr": "Neural Eigenmap + Rayleigh–Ritz",
    "scl": "SCL, as trained",
    "scl+pca": "SCL + PCA",
    "scl-features+pca": "SCL, features + PCA",
    "simclr": "SimCLR, as trained",
    "simclr+pca": "SimCLR + PCA",
    "simclr-features+pca": "SimCLR, features + PCA",
    "barlow-twins": "Barlow Twins, as trained",
    "barlow-twins+pca": "Barlow Twins + PCA",
    "barlow-twins-features+pca": "Barlow Twins, features + PCA",
    "vicreg": "VICReg, as trained",
    "vicreg+pca": "VICReg + PCA",
    "vicreg-features+pca": "VICReg, features + PCA",
}


def quality_table(
    records: Sequence[Record],
    *,
    queries_from: str,
    names: Mapping[str, str],
    metric: str = "precision@100",
) -> str:
    """Draw a Markdown table, methods by length, from the newest record of each; empty where there is none."""
    newest: dict[str, dict[int, float]] = {}
    for record in records:
        if record["metric"] == metric and record["params"]["queries_from"] == queries_from:
            newest.setdefault(record["method"], {})[record["length"]] = record["value"]
    shown = {method: newest[method] for method in names if method in newest}
    if not shown:
        return ""
    shared = sorted(set.intersection(*(set(values) for values in shown.values())))
    short = [length for length in shared if length < min(max(values) for values in shown.values())]
    lines = ["| length | " + " | ".join([*map(str, short), "full"]) + " |", "|---" * (len(short) + 2) + "|"]
    for method, values in shown.items():
        full = max(values)
        cells = [*(f"{values[length]:.3f}" for length in short), f"{values[full]:.3f} ({full})"]
        lines.append(f"| {names[method]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def newest_values(records: Sequence[Record], *, data: str, metric: str) -> dict[str, dict[int, list[float]]]:
    """Return what test queries found, by method and length: the newest record of each seed."""
    values: dict[str, dict[int, dict[int, float]]] = {}
    for record in records:
        if record["data"] == data and record["metric"] == metric and record["params"]["queries_from"] == "test":
            by_length = values.setdefault(record["method"], {})
            by_length.setdefault(record["length"], {})[record["seed"]] = record["value"]
    return {
        method: {length: list(by_seed.values()) for length, by_seed in by_length.items()}
        for method, by_length in values.items()
    }


def method_table(records: Sequence[Record], *, data: str, names: Mapping[str, str], metric: str = "mAP@1000") -> str:
    """Draw a Markdown table, methods by length: the mean over seeds, with the range where there are several."""
    by_method = newest_values(records, data=data, metric=metric)
    shown = [name for name in names if name in by_method]
    if not shown:
        return ""
    lengths = sorted(set.union(*(set(by_method[name]) for name in shown)))
    lines = ["| method | " + " | ".join(map(str, lengths)) + " |", "|---" * (len(lengths) + 1) + "|"]
    for name in shown:
        cells = [spread(by_method[name].get(length, [])) for length in lengths]
        lines.append(f"| {names[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def structure_table(records: Sequence[Record], *, data: str, names: Mapping[str, str]) -> str:
    """Draw a table of the first 16 coordinates beside 16 random ones, and of the effective rank, with seed 0."""
    columns = {"mAP@1000": "first", "mAP@1000 of random coordinates": "random", "effective rank": "rank"}
    by_method: dict[str, dict[str, float]] = {}
    for record in records:
        column = columns.get(record["metric"])
        if record["data"] != data or record["seed"] != 0 or record["params"]["queries_from"] != "test":
            continue
        if column == "rank" or (column and record["length"] == 16):
            by_method.setdefault(record["method"], {})[column] = record["value"]
    lines = ["| method | first 16 | 16 random | gain | effective rank |", "|---" * 5 + "|"]
    for name, title in names.items():
        if name in by_method:
            values = by_method[name]
            gain = values["first"] / values["random"] - 1
            cells = [f"{values['first']:.3f}", f"{values['random']:.3f}", f"{gain:+.0%}", f"{values['rank']:.0f}"]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if by_method else ""

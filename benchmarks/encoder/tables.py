"""The table of who is told to be unlike everything, from the records."""

from __future__ import annotations

from collections.abc import Sequence

from eigenlens.benchmarks.common.tables import NO_RECORD, Record

_STRANGERS = {"cifar10-animals": "animals of CIFAR-10", "tiny-imagenet-animals": "animals of Tiny-ImageNet-120"}
_HELD_OUT = "held-out clothes"
_BY_CODE = {"eigenlens": "told", "service": "told over HTTP, of 1,000"}


def novelty_table(records: Sequence[Record]) -> str:
    """Draw a Markdown table of the shares told: by the code, and by the best score alone at each length."""
    newest: dict[str, dict[tuple[str, int], float]] = {}
    for record in records:
        is_of_strangers = record["metric"] == "strangers_told"
        name = _STRANGERS[record["params"]["strangers"]] if is_of_strangers else _HELD_OUT
        newest.setdefault(name, {})[record["method"], record["length"]] = record["value"]
    if not newest:
        return NO_RECORD
    columns = sorted(
        {column for shares in newest.values() for column in shares}, key=lambda c: (c[0] not in _BY_CODE, c)
    )
    titles = [_BY_CODE.get(method, f"by the score, {length}") for method, length in columns]
    lines = ["| queries | " + " | ".join(titles) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in (*_STRANGERS.values(), _HELD_OUT):
        shares = newest.get(name, {})
        cells = [f"{100 * shares[column]:.1f} %" if column in shares else "–" for column in columns] if shares else []
        lines += ["| " + " | ".join([name, *cells]) + " |"] if cells else []
    return "\n".join(lines)


def kinds_table(records: Sequence[Record]) -> str:
    """Draw a Markdown table of photographs by class: what they find, and what is told."""
    newest: dict[str, dict[str, float]] = {}
    counts: dict[str, int] = {}
    for record in records:
        name = record["params"]["class"] + (" of the sample, on white" if record["data"].endswith("on-white") else "")
        newest.setdefault(name, {})[record["metric"]] = record["value"]
        counts[name] = record["params"]["queries"]
    if not newest:
        return NO_RECORD
    metrics = ("of_kind", "at_least_half", "told", "neither")
    lines = ["| photographs of | | of ten results, of their kind | at least half are | told unlike | neither |"]
    lines.append("|---" * (2 + len(metrics)) + "|")
    for name, shares in sorted(newest.items(), key=lambda row: ("on white" in row[0], row[0])):
        cells = [f"{100 * shares[metric]:.1f} %" for metric in metrics]
        lines.append("| " + " | ".join([name, str(counts[name]), *cells]) + " |")
    return "\n".join(lines)

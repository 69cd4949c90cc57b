"""The table of who is told to be unlike everything, from the records."""

from __future__ import annotations

from collections.abc import Sequence

from eigenlens.benchmarks.common.tables import NO_RECORD, Record

_STRANGERS = {"cifar10-animals": "animals of CIFAR-10", "tiny-imagenet-animals": "animals of Tiny-ImageNet-120"}
_HELD_OUT = "held-out clothes"


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
        {column for shares in newest.values() for column in shares}, key=lambda c: (c[0] != "eigenlens", c)
    )
    titles = ["told" if method == "eigenlens" else f"by the score, {length}" for method, length in columns]
    lines = ["| queries | " + " | ".join(titles) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in (*_STRANGERS.values(), _HELD_OUT):
        cells = [f"{100 * newest[name][column]:.1f} %" for column in columns] if name in newest else []
        lines += ["| " + " | ".join([name, *cells]) + " |"] if cells else []
    return "\n".join(lines)

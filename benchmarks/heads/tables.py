"""A table of heads on a frozen backbone, from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eigenlens.benchmarks.common.tables import NO_RECORD, Record, spread

OF_VIEWS, OF_CROPS = "views", "views, crops"
"""The head that `eigenlens fit` fits by default, and an encoder with that head over the crops of a picture."""
HEADS = {
    "raw": "features, leading coordinates",
    "pca": "PCA of the features",
    "pca-of-roots": "PCA of their square roots",
    OF_VIEWS: "**Eigenlens**, positives are views",
    OF_CROPS: "**Eigenlens**, views, of three crops",
    "views, whole": "**Eigenlens**, views of whole pictures",
    "neighbours": "**Eigenlens**, positives are neighbours",
    "both": "**Eigenlens**, both",
    "photos": "**Eigenlens**, views, fitted to more photographs",
}


CHOSEN, ELSEWHERE = "views, chosen", "elsewhere"
OWN_HEADS = {name: HEADS[name] for name in ("raw", "pca", "pca-of-roots")} | {
    ELSEWHERE: "**Eigenlens**, fitted to clothing",
    CHOSEN: "**Eigenlens**, fitted to them, settings chosen by held-out ones",
    OF_VIEWS: "**Eigenlens**, fitted to them, as `eigenlens up` does",
}
"""Codes of photographs that were fitted to these, but for those of ELSEWHERE."""

RIVAL = "pca-of-roots"
"""The simplest head that is close: what is called ahead is ahead of this one."""
RIVALS = (RIVAL, "pca")
QUALITY = ("precision@10", "mAP")


def gain_metrics(rival: str) -> tuple[str, str, str]:
    """Name the metrics of the mean gain over a rival and of the ends of its interval."""
    return f"mAP over {rival}", f"mAP over {rival}, low", f"mAP over {rival}, high"


def head_table(records: Sequence[Record], *, data: str, names: Mapping[str, str]) -> str:
    """Draw a Markdown table of heads on a frozen backbone, by length; empty where there is none."""
    newest: dict[str, dict[int, float]] = {}
    for record in records:
        if record["data"] == data and record["metric"] in QUALITY:
            newest.setdefault(record["method"], {})[record["length"]] = record["value"]
    shown = [name for name in names if name in newest]
    if not shown:
        return ""
    lengths = sorted(newest[shown[0]])
    lines = ["| codes | " + " | ".join(map(str, lengths)) + " |", "|---" * (len(lengths) + 1) + "|"]
    for name in shown:
        cells = [spread([newest[name][length]] if length in newest[name] else []) for length in lengths]
        lines.append(f"| {names[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def gain_table(
    records: Sequence[Record], *, names: Mapping[str, str], data: str = "holidays-half", rival: str = RIVAL
) -> str:
    """Draw the gain of each method over a rival with its interval, bold where that excludes 0."""
    metrics = gain_metrics(rival)
    values = {(r["method"], r["length"], r["metric"]): r["value"] for r in records if r["data"] == data}
    shown = [name for name in names if any(key[0] == name and key[2] == metrics[0] for key in values)]
    if not shown:
        return NO_RECORD
    lengths = sorted({length for method, length, metric in values if method == shown[0] and metric == metrics[0]})
    lines = ["| codes | " + " | ".join(map(str, lengths)) + " |", "|---" * (len(lengths) + 1) + "|"]
    for name in shown:
        cells = []
        for length in lengths:
            gain, low, high = (values.get((name, length, metric)) for metric in metrics)
            if gain is None or low is None or high is None:
                cells.append("–")
                continue
            mean = f"**{gain:+.3f}**" if low > 0 or high < 0 else f"{gain:+.3f}"
            cells.append(f"{mean} ({low:+.3f} to {high:+.3f})")
        lines.append(f"| {names[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def own_gain_table(records: Sequence[Record], *, data: str) -> str:
    """Draw the gain of the head that was fitted to the photographs themselves over each other, with its interval."""
    tables = [
        gain_table(records, names={OF_VIEWS: f"over {OWN_HEADS[rival]}"}, data=data, rival=rival).splitlines()
        for rival in (*RIVALS, ELSEWHERE)
    ]
    return "\n".join(tables[0][:2] + [row for table in tables for row in table[2:]])


def frozen_table(records: Sequence[Record]) -> str:
    """Draw what settings of the frozen backbone give the head of views: mAP by hard views and on Holidays, and speed.

    The gain over the first setting follows where its interval excludes 0.
    """
    values = {(r["method"], r["data"], r["metric"], r["length"]): r["value"] for r in records}
    methods = [r["method"] for r in records if r["metric"] == "mAP" and r["method"].endswith(": views")]
    if not methods:
        return NO_RECORD
    lengths, columns = (32, 64, 128), (("clothing-hard-views", "hard views"), ("holidays-half", "Holidays"))
    titles = [f"{title}, {length}" for _, title in columns for length in lengths]
    lines = ["| setting | " + " | ".join(titles) + " | speed |", "|---" * (len(titles) + 2) + "|"]
    for method in dict.fromkeys(methods):
        setting, _, pooling = method.removesuffix(": views").rpartition(", ")
        cells = []
        for data, _ in columns:
            for length in lengths:
                gain, low, high = (values[method, data, f"over 224 px{end}", length] for end in ("", ", low", ", high"))
                shown = f" ({gain:+.3f})" if low > 0 or high < 0 else ""
                cells.append(f"{values[method, data, 'mAP', length]:.3f}{shown}")
        speed = values.get((setting, "any", "speed over 224 px", None))
        cells.append("–" if speed is None else f"{speed:.2f}")
        lines.append(f"| {setting}, {'GeM' if pooling == 'gem' else pooling} | " + " | ".join(cells) + " |")
    return "\n".join(lines)

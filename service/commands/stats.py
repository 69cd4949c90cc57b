"""`eigenlens stats`: figures of a running service's gallery."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from eigenlens.service.api.admin import LiveRecallAnswer, ReachedRecallAnswer
from eigenlens.service.api.search import RebuildAdviceAnswer
from eigenlens.service.commands.connection import configure_connection, connect, print_json, print_table

EPILOG = """examples:
  eigenlens stats --key-file GALLERY/admin.key
  eigenlens stats --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Print the figures. Raises: ServiceError."""
    with connect(args) as client:
        stats = client.stats()
    if args.json:
        print_json(stats)
        return 0
    rows: list[tuple[str, str]] = []
    for name, value in stats.items():
        if isinstance(value, LiveRecallAnswer | RebuildAdviceAnswer):
            continue
        if isinstance(value, dict):
            rows += [(f"{name} of {part}", f"{size:,}") for part, size in value.items()]
        elif isinstance(value, list):
            rows.append((name, ", ".join(map(str, value)) or "none"))
        else:
            rows.append((name, f"{value:,}" if isinstance(value, int | float) else str(value)))
    print_table(("figure", "value"), [(name.replace("_", " "), value) for name, value in rows])
    if stats.rebuild_advice is not None:
        print(f"\na rebuild would pay: {stats.rebuild_advice.reason}")
    if stats.live_recall.plans:
        print("\nrecall of the last searches, by exact repetition of some of them")
        print_table(
            ("length", "kind", "k", "filter", "promised", "recall", "95 % interval", "searches", ""),
            map(_recall_row, stats.live_recall.plans),
        )
    return 0


def _recall_row(reached: ReachedRecallAnswer) -> Sequence[object]:
    target, expected = reached.target_recall, reached.plan.expected_recall
    promised = expected if target is None else target
    return (
        reached.plan.length,
        reached.plan.kind,
        reached.k,
        "yes" if reached.filtered else "no",
        "none" if promised is None else f"{promised:.3f}",
        f"{reached.recall:.3f}",
        f"{reached.recall_low:.3f} to {reached.recall_high:.3f}",
        reached.searches,
        "below its promise: run `eigenlens recalibrate`" if reached.below_promise else "",
    )

"""The table of who is told to be unlike everything."""

from __future__ import annotations

from eigenlens.benchmarks.common.records import Subject, make_record
from eigenlens.benchmarks.encoder.tables import novelty_table


def test_what_was_not_asked_is_left_open() -> None:
    params = {"strangers": "cifar10-animals"}
    records = [
        make_record(Subject(bench="novelty", data="d", method=method, length=length, params=params), metric, value)
        for method, length, metric, value in [
            ("best-score", 4, "strangers_told", 0.2),
            ("eigenlens", 128, "strangers_told", 0.9),
            ("service", 128, "strangers_told", 0.93),
            ("eigenlens", 128, "held_out_told", 0.01),
        ]
    ]
    assert novelty_table(records).splitlines() == [
        "| queries | told | told over HTTP, of 1,000 | by the score, 4 |",
        "|---|---|---|---|",
        "| animals of CIFAR-10 | 90.0 % | 93.0 % | 20.0 % |",
        "| held-out clothes | 1.0 % | – | – |",
    ]

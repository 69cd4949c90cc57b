"""`eigenlens bench service`: real servers under real load, records that are not measured twice, and their tables."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import faiss
import pytest

from eigenlens.benchmarks.common.records import Subject, make_record, read_records
from eigenlens.benchmarks.runtime.tables import runtime_table
from eigenlens.benchmarks.service.load import Connection, Load
from eigenlens.benchmarks.service.measure import Measured, plain_index, write_queries
from eigenlens.benchmarks.service.tables import closed_table, light_table, open_table
from eigenlens.command import main
from tests.support.service import build_gallery


@pytest.mark.timing
def test_a_service_is_measured_beside_the_limit_and_a_plain_endpoint_and_not_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = build_gallery(tmp_path, count=20)
    results = tmp_path / "service.jsonl"
    command = ["bench", "service", "--gallery", str(gallery.root), "--photos", str(tmp_path / "images")]
    command += ["--work", str(tmp_path / "work"), "--sizes", "200px", "--concurrency", "32", "--seconds", "0.5"]
    command += ["--rounds", "1", "--warm-s", "0.2", "--overload-s", "1", "--results", str(results)]
    assert main(command) == 0
    found = read_records(results)
    closed = {r["method"] for r in found if r["params"]["load"] == "closed" and r["metric"] == "throughput_rps"}
    assert closed == {"eigenlens", "in-process", "plain-fastapi"}
    assert all(r["value"] > 0 for r in found if r["metric"] in ("throughput_rps", "p50_ms", "p99_ms"))
    for record in found:
        assert record["params"]["photo"] == "200px"
        assert set(record["params"]["statuses"]) <= {"200", "429"}
    loads = {r["params"]["load"]: r for r in found if r["method"] == "eigenlens" and r["metric"] == "p99_ms"}
    assert set(loads) == {"closed", "open", "overload"}
    assert loads["overload"]["value"] < 2500
    assert loads["overload"]["params"]["statuses"]["429"] > 0
    capsys.readouterr()
    assert main(command) == 0
    assert read_records(results) == found
    assert "200px" not in capsys.readouterr().out
    assert len(closed_table(found).splitlines()) == 3
    assert len(open_table(found).splitlines()) == 4


def test_searches_without_photographs_are_measured_with_one_process_and_with_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = build_gallery(tmp_path, count=20)
    results = tmp_path / "service.jsonl"
    command = ["bench", "service", "--gallery", str(gallery.root), "--work", str(tmp_path / "work")]
    command += ["--sizes", "id", "--concurrency", "32", "--rounds", "1", "--seconds", "0.3", "--warm-s", "0.1"]
    command += ["--results", str(results)]
    assert main(command) == 0
    found = read_records(results)
    cells = {(r["params"]["photo"], r["params"]["workers"], r["method"]) for r in found}
    assert cells == {("id", workers, "eigenlens") for workers in (1, 2)}
    assert all(set(r["params"]["statuses"]) == {"200"} for r in found)
    for metric in ("throughput_rps", "cpu_ms", "p50_ms"):
        values = [r["value"] for r in found if r["metric"] == metric]
        assert len(values) == 2
        assert min(values) > 0
    rows = [line.split(" | ")[1:4] for line in light_table(found).splitlines()[2:]]
    assert rows == [["an id", workers, "32"] for workers in ("1", "2")]
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out == ""
    assert read_records(results) == found


def test_searches_that_fail_within_an_answer_are_not_counted_as_answered() -> None:
    """A request of 100 codes is answered with 200, whichever of its searches were refused."""
    load = Load([b"request"], port=0, seed=0)
    connection = Connection(load, deque())
    for counting, failed in ((False, 7), (True, 90), (True, 0)):
        load.counting, connection.sent_at = counting, 0.0
        body = b'{"answers":[{"failed":"by name"}],"failed":%d,"timing_ms":{"total":1.0}}' % failed
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        connection.data_received(answer[:50])
        connection.data_received(answer[50:])
    assert (load.answers, load.failed, load.failed_counted) == (3, 97, 90)
    assert load.statuses == {200: 2}
    told = {"seconds": 2.0, "latencies_ms": [1.0, 1.0], "statuses": {"200": 2}, "batches": {}, "lost": 0}
    measured = Measured()
    measured.add(told | {"failed_counted": 90}, searches=100)
    assert (measured.throughputs, measured.failed) == ([55.0], 90)


def test_queries_and_the_plain_index_are_those_of_the_gallery_that_is_measured(tmp_path: Path) -> None:
    bodies = []
    for count in (20, 40):
        gallery = build_gallery(tmp_path / str(count), count=count)
        write_queries(gallery, tmp_path / "work", kinds=["id"])
        assert faiss.read_index(str(plain_index(gallery, tmp_path / "work"))).ntotal == count
        bodies.append({path.read_text() for path in (tmp_path / "work" / "id").iterdir()})
    assert bodies[0] != bodies[1]


def test_photographs_are_asked_for_only_where_they_are_searched_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "service", "--gallery", str(tmp_path), "--work", str(tmp_path), "--sizes", "id,200px"]
    assert main(command) == 1
    assert "--photos, or --sizes id,code,codes" in capsys.readouterr().err


def test_a_size_that_there_is_not_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "service", "--gallery", str(tmp_path), "--photos", "nowhere", "--work", str(tmp_path)]
    assert main([*command, "--sizes", "3px"]) == 1
    assert "there is no size '3px'; available: 200px, 1mp, 12mp, id, code, codes" in capsys.readouterr().err


def test_tables_of_the_service_show_the_newest_values() -> None:
    def records(method: str, load: str, concurrency: int, **values: float) -> list[dict[str, Any]]:
        statuses = {"200": 100, "429": 300}
        params = {"photo": "200px", "load": load, "concurrency": concurrency, "seconds": 1.0, "rounds": 1}
        params |= {"statuses": statuses, "share": 5}
        subject = Subject(bench="service", data="d", method=method, params=params)
        return [make_record(subject, metric, value) for metric, value in values.items()]

    times = {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0}
    found = records("eigenlens", "closed", 32, throughput_rps=1.0)
    found += records("eigenlens", "closed", 32, throughput_rps=900.0, batch_mean=8.5, **times)
    found += records("in-process", "closed", 32, throughput_rps=1000.0)
    found += records("eigenlens", "overload", 256, throughput_rps=100.0, memory_mb=90, memory_growth_mb=0.5, **times)
    assert closed_table(found).splitlines()[2:] == ["| d | 200px | 32 | 1,000/s | 900/s | – | 1 / 2 / 3 ms | 8.5 |"]
    assert open_table(found).splitlines()[2:] == [
        "| d | 200px | 5 times | 400/s | 100/s | 75% | 1 / 2 / 3 ms | 90 MB +0.5 |"
    ]
    assert closed_table([]) == open_table([]) == "No record yet."


def test_the_table_of_runtimes_shows_speed_and_what_precision_costs() -> None:
    def record(method: str, metric: str, value: float, length: int | None = None, **params: Any) -> dict[str, Any]:
        subject = Subject(bench="runtime", data="d", method=method, length=length, params=params)
        return make_record(subject, metric, value)

    found = [record(name, "images_per_s", 10.0 * batch, batch=batch) for name in ("a", "b") for batch in (1, 16)]
    found += [record("a", "mAP@100", length / 100, length) for length in (4, 8, 16)]
    assert runtime_table(found).splitlines() == [
        "| runtime | batch of 1 | batch of 16 | mAP@100, length 8 | mAP@100, length 16 |",
        "|---|---|---|---|---|",
        "| a | 10/s | 160/s | 0.0800 | 0.1600 |",
        "| b | 10/s | 160/s | – | – |",
    ]


def test_runtimes_are_timed_and_their_codes_compared(tmp_path: Path) -> None:
    from tests.support.training import finished_run, write_images  # with torch, which the tests before do not need

    images = write_images(tmp_path / "images")
    run = finished_run(tmp_path / "run", images, steps=2)
    assert main(["export", str(run.path), "--out", str(tmp_path / "encoder")]) == 0
    results = tmp_path / "runtime.jsonl"
    command = ["bench", "runtime", "--encoder", str(tmp_path / "encoder"), "--images", str(images)]
    command += ["--query-images", str(images), "--trial-s", "0.05", "--results", str(results)]
    assert main(command) == 0
    found = read_records(results)
    methods = {record["method"] for record in found}
    assert {"onnxruntime-float32", "torch-float32"} <= methods
    assert all(record["value"] > 0 for record in found)
    assert {r["length"] for r in found if r["metric"] == "mAP@100"} >= {4}

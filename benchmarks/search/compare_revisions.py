"""Search latency of two revisions of this project over one generation, on one thread, one query at a time.

    python -m eigenlens.benchmarks.search.compare_revisions --before OLD --after NEW --work runs/revisions \\
        --count 1000000 --results benchmarks/results/revisions.jsonl

Each revision searches in a process of its own; rounds of a few hundred queries alternate between them, so that a
disturbance of the machine meets both. The generation is built once, by the earlier revision: from the codes that
`eigenlens bench search --work` keeps, or from synthetic ones where there are none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from eigenlens.artifact import EigenlensError, write_atomic
from eigenlens.benchmarks.common.arguments import positive
from eigenlens.benchmarks.common.records import Subject, append_records, make_record
from eigenlens.benchmarks.common.revisions import (
    Revision,
    RevisionError,
    add_revision_arguments,
    alternating,
    ratios,
    revisions_of,
)
from eigenlens.benchmarks.search.setup import Setup, truth
from eigenlens.index.plans.plan import choose_lengths

TARGETS = (0.95, 0.99)
_DRIVER = Path(__file__).parent / "revision_driver.py"
_K = 10
_WARM = 50
_CHUNK = 50_000
_CODE_LENGTH = 256
_QUERIES = 2000
_CLUSTERS = 2000
_SPREAD = 0.6


class Driver:
    """A process that runs one revision's code."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **request: Any) -> Any:
        """Send a request and return its answer. Raises: RevisionError, if the process ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RevisionError(f"the driver ended with status {self._process.wait()}; see above")
        return json.loads(answer)


@contextmanager
def driving(revision: Revision, *, threads: int | None) -> Iterator[Driver]:
    """Run a revision's code in a process of its own, with so many threads for each library; all when None."""
    limits = {} if threads is None else dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    process = subprocess.Popen(
        [sys.executable, str(_DRIVER)],
        env=revision.environment(**limits),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Driver(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def synthetic_codes(work: Path, *, count: int) -> None:
    """Write clustered unit codes and queries in the places where `eigenlens bench search` keeps those of views.

    Coordinates lose variance as those of an encoder do, so that a prefix finds most of the neighbours.
    """
    rng = np.random.default_rng(0)
    scale = (1 + np.arange(_CODE_LENGTH)) ** -0.5
    centres = rng.normal(size=(_CLUSTERS, _CODE_LENGTH)) * scale

    def draw(number: int) -> bytes:
        noise = rng.normal(size=(number, _CODE_LENGTH)) * scale
        codes = centres[rng.integers(_CLUSTERS, size=number)] + _SPREAD * noise
        unit: NDArray[np.float64] = codes / np.linalg.norm(codes, axis=1, keepdims=True)
        return unit.astype(np.float16).tobytes()

    (work / "gallery").mkdir(parents=True, exist_ok=True)
    for name in ("calibration", "fresh"):
        (work / f"{name}.f16").write_bytes(draw(_QUERIES))
    with (work / "gallery" / "codes.f16").open("wb") as f:
        for start in tqdm(range(0, count, _CHUNK), desc="codes", unit="chunk"):
            f.write(draw(min(_CHUNK, count - start)))
    state = {"encoder": "synthetic", "done": count}
    write_atomic(work / "gallery" / "codes.json", json.dumps(state).encode())


def setup_in(work: Path, *, count: int) -> Setup:
    """Return what is searched: the codes that `work` has, or synthetic ones."""
    state_path = work / "gallery" / "codes.json"
    state = json.loads(state_path.read_text()) if state_path.exists() else {}
    if state.get("encoder", "synthetic") == "synthetic" and state.get("done", 0) != count:
        synthetic_codes(work, count=count)
        state = json.loads(state_path.read_text())
    if state["done"] < count:
        raise RevisionError(f"{work} has {state['done']} codes; `eigenlens bench search --work {work}` makes more")
    codes = work / "gallery" / "codes.f16"
    code_length = codes.stat().st_size // (2 * state["done"])
    return Setup(
        work=work,
        codes=codes,
        calibration=work / "calibration.f16",
        fresh=work / "fresh.f16",
        count=count,
        code_length=code_length,
        lengths=choose_lengths(code_length),
        kinds={},
        encoder=state["encoder"],
    )


def compare(
    setup: Setup, revisions: Sequence[Revision], *, rounds: int, queries_per_round: int
) -> dict[float, dict[str, dict[str, Any]]]:
    """Time the searches of each target; returns by target and revision: rounds (milliseconds), keys, plan."""
    with driving(revisions[0], threads=None) as driver:
        as_json = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(setup).items()}
        driver.ask(build=as_json)
    results: dict[float, dict[str, dict[str, Any]]] = {}
    count = len(setup.queries)
    with ExitStack() as stack:
        drivers = {r.name: stack.enter_context(driving(r, threads=1)) for r in revisions}
        request = {"open": str(setup.folder), "queries": str(setup.fresh), "targets": TARGETS}
        for name, driver in drivers.items():
            for target, plan in driver.ask(**request).items():
                results.setdefault(float(target), {})[name] = {"plan": plan, "rounds": [], "keys": {}}
        for number in tqdm(range(rounds), desc="rounds"):
            start = number * queries_per_round % count
            rows = start, min(start + queries_per_round, count)
            for target, by_name in results.items():
                for revision in alternating(revisions, number):
                    answer = drivers[revision.name].ask(search=target, rows=rows, warm=_WARM)
                    by_name[revision.name]["rounds"].append(answer["milliseconds"])
                    by_name[revision.name]["keys"] |= dict(zip(range(*rows), answer["keys"], strict=True))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and record."""
    parser = argparse.ArgumentParser(
        prog="python -m eigenlens.benchmarks.search.compare_revisions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_revision_arguments(parser)
    parser.add_argument("--work", metavar="DIR", type=Path, required=True, help="where codes and indexes are kept")
    parser.add_argument("--count", type=positive, default=1_000_000, help="codes to search (default: %(default)s)")
    parser.add_argument("--rounds", type=positive, default=40, help="of each revision (default: %(default)s)")
    parser.add_argument("--queries-per-round", type=positive, default=300, help="timed (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="add the records to FILE")
    args = parser.parse_args(arguments)
    try:
        revisions = revisions_of(args)
        setup = setup_in(args.work.resolve(), count=args.count)
        exact = truth(setup)
        results = compare(setup, revisions, rounds=args.rounds, queries_per_round=args.queries_per_round)
    except EigenlensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    records: list[dict[str, Any]] = []
    for target, by_name in results.items():
        medians = {name: [float(np.median(one)) for one in result["rounds"]] for name, result in by_name.items()}
        of_rounds, low, high = ratios(medians)
        all_times = {name: np.concatenate(result["rounds"]) for name, result in by_name.items()}
        ratio = float(np.median(all_times["after"]) / np.median(all_times["before"]))
        for revision in revisions:
            result, times = by_name[revision.name], all_times[revision.name]
            recall = float(np.mean([np.isin(exact[row], keys).mean() for row, keys in result["keys"].items()]))
            p50, p95, p99 = (round(float(np.percentile(times, q)), 4) for q in (50, 95, 99))
            params = {"n": args.count, "k": _K, "dimensions": setup.code_length, "threads": 1, "recall": target}
            params |= {"recall_seen": round(recall, 4), "p95": p95, "p99": p99, "plan": result["plan"]}
            params |= {"rounds": args.rounds, "queries": len(times), "revision": revision.describe()}
            params |= {"after / before": round(ratio, 4), "of rounds": [round(r, 4) for r in (low, of_rounds, high)]}
            records.append(
                make_record(
                    Subject(bench="revisions", data=setup.encoder, method=revision.name, params=params),
                    "latency_ms",
                    p50,
                    "ms",
                )
            )
            print(f"recall {target:<6}{revision.name:<8}p50 {p50:.4f} ms  p99 {p99:.4f} ms  recall seen {recall:.4f}")
        print(f"recall {target:<6}after / before: {ratio:.4f}; of rounds {of_rounds:.4f} ({low:.4f} to {high:.4f})")
        if by_name["before"]["plan"] != by_name["after"]["plan"]:
            print("the plans differ: these are not the same searches", file=sys.stderr)
    if args.results:
        append_records(args.results, records)
    return 0


if __name__ == "__main__":
    sys.exit(main())

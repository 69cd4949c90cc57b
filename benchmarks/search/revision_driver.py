"""One revision's side of `compare_revisions`: opens a generation, searches it, and says how long each search took.

It runs on its own, with a checkout of any revision on the path; requests and answers are lines of JSON.

    {"build": SETUP}                   builds the generation, unless it is there
    {"open": FOLDER, "queries": FILE, "targets": [0.95, ...]}    answers each target's plan
    {"search": TARGET, "rows": [first, last], "warm": N}         answers milliseconds and keys of each query
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

K = 10


def build(setup: dict[str, Any]) -> dict[str, Any]:
    """Build the generation as `eigenlens bench search` does."""
    module = _first_of(
        "eigenlens.benchmarks.search.eigenlens_modes", "eigenlens.benchmarks.search.measure", "benchmarks.search"
    )
    paths = {name: Path(setup[name]) for name in ("work", "codes", "calibration", "fresh")}
    kinds = {int(length): kind for length, kind in setup["kinds"].items()}
    known = {field.name for field in fields(module.Setup)}
    values = setup | paths | {"lengths": tuple(setup["lengths"]), "kinds": kinds}
    options = module.Setup(**{name: value for name, value in values.items() if name in known})
    build_generation = getattr(module, "build", None) or module._built
    built: dict[str, Any] = build_generation(options)
    return built


class Opened:
    """A generation, searched as the service of this revision does: codes go in, keys and cosines come out."""

    def __init__(self, folder: Path, queries: Path, targets: list[float]) -> None:
        generation, self._search = _open(folder)
        rows = np.fromfile(queries, dtype=np.float16).reshape(-1, generation.code_length).astype(np.float32)
        self._queries = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._plans = {}
        for target in targets:
            chosen = generation.calibration.choose(k=K, target_recall=target)
            self._plans[target] = chosen.for_k(K)
        self.plans = {str(target): asdict(plan) for target, plan in self._plans.items()}

    def time(self, target: float, rows: tuple[int, int], warm: int) -> dict[str, Any]:
        """Search with each query of `rows` by itself, after `warm` ones that are not timed."""
        plan, search = self._plans[target], self._search
        for number in range(rows[0] - warm, rows[0]):
            search(self._queries[number % len(self._queries)][None], plan)
        milliseconds, keys = [], []
        for number in range(*rows):
            query = self._queries[number : number + 1]
            started = time.perf_counter()
            nearest = search(query, plan)
            milliseconds.append(1000 * (time.perf_counter() - started))
            keys.append([int(key) for key, _ in nearest[0]])
        return {"milliseconds": milliseconds, "keys": keys}


def _open(folder: Path) -> tuple[Any, Callable[[Any, Any], Any]]:
    """Open a generation: itself, and a search by a plan through all that the service goes through below HTTP."""
    codes = _first_of("eigenlens.index.codes.artifact", "index.codes").Codes(folder / "codes")
    module = _first_of("eigenlens.index.faiss_engine.generation", "index.generation")
    generation = module.Generation(folder / "generation", codes)
    try:
        engine = _engine_of(generation)
    except ImportError:
        return generation, _search_without_engine(generation)
    return generation, lambda codes, plan: engine.search(codes, plan=plan, k=K)


def _engine_of(generation: Any) -> Any:
    try:
        return importlib.import_module("eigenlens.index.live.engine").LiveEngine(generation)
    except ImportError:  # of revisions with one engine
        return importlib.import_module("eigenlens.index.faiss_engine.engine").FaissEngine(generation)


def _search_without_engine(generation: Any) -> Callable[[Any, Any], Any]:
    """Search as the `Searcher` did in revisions without an engine seam."""
    delta = _first_of("eigenlens.index.faiss_engine.delta", "index.delta")
    searcher = _first_of("eigenlens.service.search.manager", "service.searcher").Searcher
    snapshot = SimpleNamespace(
        generation=generation,
        delta=delta.Delta(generation.code_length, generation.lengths),
        rows=SimpleNamespace(selection=lambda _: None),
    )
    return lambda codes, plan: searcher._scored(None, snapshot, codes, plan, None, k=K)


def _first_of(*names: str) -> Any:
    """Import the first module that there is; earlier revisions have their packages at the top."""
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(names[-1])


def main() -> None:
    """Answer requests until there are no more."""
    import faiss

    opened: Opened | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any
        if "build" in request:
            answer = build(request["build"])
        elif "open" in request:
            faiss.omp_set_num_threads(1)
            opened = Opened(Path(request["open"]), Path(request["queries"]), request["targets"])
            answer = opened.plans
        else:
            assert opened is not None
            answer = opened.time(request["search"], tuple(request["rows"]), request["warm"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

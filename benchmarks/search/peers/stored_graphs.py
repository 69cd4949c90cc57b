"""Graphs over prefixes built once, each in a process of its own, and kept with the time and memory that they took."""

from __future__ import annotations

import json
import shutil
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from eigenlens import artifact
from eigenlens.benchmarks.search.interleaved import in_process_of_its_own
from eigenlens.benchmarks.search.peers.prefix_graphs import PREFIX_GRAPHS, PrefixGraph
from eigenlens.benchmarks.search.setup import CORES, K, Setup
from eigenlens.benchmarks.search.values import anonymous_bytes

_TRIED = 500  # vectors that show whether a graph can be built here
_SEARCHED = 100
# Where the module's name is not the distribution's; a benchmark beside other libraries runs on the CPU.
DISTRIBUTIONS = {"svs": "scalable-vs", "faiss": "faiss-cpu"}


@dataclass(frozen=True)
class StoredGraph:
    """A graph on disk.

    Attributes:
        prefix: length of the prefixes.
        build_s: seconds that building it with all cores took.
        memory_bytes: what a process holds more after opening it.
    """

    graph_class: type[PrefixGraph]
    prefix: int
    folder: Path
    build_s: float
    memory_bytes: int

    @property
    def params(self) -> dict[str, Any]:
        """What a record says of it."""
        variant = {"variant": self.graph_class.variant} if self.graph_class.variant else {}
        return {"prefix": self.prefix} | variant | self.graph_class.settings

    def open(self) -> PrefixGraph:
        """Return it in memory."""
        graph = self.graph_class()
        graph.load(self.folder, length=self.prefix)
        return graph


def stored_graphs(setup: Setup, method: str) -> list[StoredGraph]:
    """Return a method's graphs over each of the setup's prefixes; those that are not on disk are built."""
    stored = []
    for graph_class in PREFIX_GRAPHS[method]:
        prefixes = [prefix for prefix in setup.prefixes if prefix < setup.code_length]
        if graph_class.variant and (reason := _refusal(graph_class)) is not None:
            print(f"{method}: no {graph_class.variant} here: {reason}", file=sys.stderr)
            continue
        for prefix in prefixes:
            name = "-".join(part for part in (method.removesuffix("+prefix"), graph_class.variant, str(prefix)) if part)
            folder = setup.folder / "graphs" / name
            noted, made = folder / "built.json", _made_by(graph_class, setup)
            values = json.loads(noted.read_text()) if noted.exists() else {}
            if {name: values.get(name) for name in made} != made:
                values = made
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            for measure, measured in ((_build, "build_s"), (_memory_of, "memory_bytes")):
                if measured not in values:
                    with in_process_of_its_own() as another:
                        values[measured] = another.submit(measure, setup, graph_class, prefix, folder).result()
                    artifact.write_atomic(noted, json.dumps(values).encode())
            stored.append(StoredGraph(graph_class, prefix, folder, values["build_s"], values["memory_bytes"]))
    return stored


def _made_by(graph_class: type[PrefixGraph], setup: Setup) -> dict[str, Any]:
    """Return what a stored graph depends on: another one is built if any of it changes."""
    distribution = DISTRIBUTIONS.get(graph_class.package, graph_class.package)
    return {
        "encoder": setup.encoder,
        "count": setup.count,
        "threads": CORES,
        "settings": dict(graph_class.settings),
        "version": f"{distribution} {version(distribution)}",
    }


def _build(setup: Setup, graph_class: type[PrefixGraph], prefix: int, folder: Path) -> float:
    """Build and save a graph. Returns: seconds that building took."""
    vectors = setup.vectors(None if graph_class.rescores else prefix)
    graph = graph_class()
    started = time.perf_counter()
    graph.build(vectors, length=prefix)
    build_s = time.perf_counter() - started
    graph.save(folder)
    return round(build_s, 1)


def _memory_of(setup: Setup, graph_class: type[PrefixGraph], prefix: int, folder: Path) -> int:
    """Return the memory that a saved graph takes, after a few searches."""
    graph, queries = graph_class(), setup.calibration_queries[:_SEARCHED]
    __import__(graph_class.package)
    before = anonymous_bytes()
    graph.load(folder, length=prefix)
    search = graph.prepare(limit=K, effort=K)
    for query in queries if graph_class.rescores else np.ascontiguousarray(queries[:, :prefix]):
        search(query[None])
    return anonymous_bytes() - before


@cache
def _refusal(graph_class: type[PrefixGraph]) -> str | None:
    """Return why a graph cannot be built on this machine; None if it can."""
    try:
        with in_process_of_its_own() as another:
            another.submit(_try, graph_class).result()
    except BrokenProcessPool:
        return "the library ended its process; what it printed says why"
    except RuntimeError as error:
        return str(error)
    return None


def _try(graph_class: type[PrefixGraph]) -> None:
    vectors = np.random.default_rng(0).normal(size=(_TRIED, 32)).astype(np.float32)
    graph_class().build(vectors, length=16 if graph_class.rescores else 32)

"""Searches of several methods timed in turn, each in a process of its own: what disturbs the machine meets all."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from eigenlens.benchmarks.search.setup import Ids, Vectors

Search = Callable[[Vectors], Ids]
TURNS = 10
PASSES = 4
_WARM = 50


@dataclass(frozen=True)
class Trial:
    """Searches of one method that are timed beside the others' of the same name.

    Attributes:
        prepare: makes the search, one query (1, d) to the ids of its 10 nearest; called anew before each turn.
        queries: of all, (q, d); each is timed once in every pass.
        passes: over the queries.
        params: of the record.
    """

    name: str
    prepare: Callable[[], Search]
    queries: Vectors
    passes: int = PASSES
    params: Mapping[str, Any] = field(default_factory=dict)

    def take_turn(self, turn: int) -> tuple[list[float], list[Ids]]:
        """Return milliseconds and ids of a part of the queries; some before them warm the caches."""
        numbers = np.array_split(np.arange(len(self.queries)), TURNS)[turn]
        search = self.prepare()
        for number in np.arange(numbers[0] - _WARM, numbers[0]) % len(self.queries) if self.passes > 1 else ():
            search(self.queries[number : number + 1])
        return time_each(search, self.queries[numbers])


class Timed(Protocol):
    """What is timed in turns: a Trial, or batches on all cores."""

    @property
    def name(self) -> str: ...

    @property
    def passes(self) -> int: ...

    @property
    def params(self) -> Mapping[str, Any]: ...

    def take_turn(self, turn: int) -> tuple[list[float], list[Ids]]:
        """Return milliseconds, and ids of the nearest, in one of a pass's turns."""


@dataclass
class Times:
    """Latencies and results of one search.

    Attributes:
        milliseconds: of every query in every pass, or a query's share of every turn's batches.
        ids: of the nearest of each query, in order.
    """

    params: Mapping[str, Any]
    milliseconds: list[float] = field(default_factory=list)
    ids: list[Ids] = field(default_factory=list)


@dataclass
class Opened:
    """A method that is ready: what was measured of it by itself, and what is to be timed beside others."""

    values: list[dict[str, Any]]
    trials: Sequence[Timed]


_opened: list[Timed] = []


def run_interleaved(
    openers: Mapping[str, Callable[..., Opened]], *args: Any
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[Times]]]:
    """Open each method in a process of its own, one after the other, then time their searches in turn.

    Args:
        openers: by method, functions of a module, called with the method's name after `args`.

    Returns: by method, the values that opening it gave, and the times of its searches.
    """
    values: dict[str, list[dict[str, Any]]] = {}
    times: dict[str, list[Times]] = {}
    turns: dict[str, list[tuple[str, int, int]]] = {}
    with ExitStack() as stack:
        pools = {name: stack.enter_context(in_process_of_its_own()) for name in openers}
        for method, opener in tqdm(openers.items(), desc="open", unit="method"):
            values[method], trials = pools[method].submit(_open, opener, *args, method).result()
            times[method] = [Times(params) for _, _, params in trials]
            for number, (name, passes, _) in enumerate(trials):
                turns.setdefault(name, []).append((method, number, passes))
        for turn in tqdm(range(TURNS * PASSES), desc="time", unit="turn"):
            for contenders in turns.values():
                first = turn % len(contenders)
                for method, number, passes in contenders[first:] + contenders[:first]:
                    if turn < TURNS * passes:
                        took, ids = pools[method].submit(_take_turn, number, turn % TURNS).result()
                        times[method][number].milliseconds += took
                        if turn < TURNS:
                            times[method][number].ids += ids
    return values, times


def in_process_of_its_own() -> ProcessPoolExecutor:
    """Return one new process, whose memory and threads are its own."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _open(
    opener: Callable[..., Opened], *args: Any
) -> tuple[list[dict[str, Any]], list[tuple[str, int, Mapping[str, Any]]]]:
    opened = opener(*args)
    _opened[:] = opened.trials
    return opened.values, [(trial.name, trial.passes, trial.params) for trial in opened.trials]


def _take_turn(trial_number: int, turn: int) -> tuple[list[float], list[Ids]]:
    return _opened[trial_number].take_turn(turn)


def time_each(search: Search, queries: Vectors) -> tuple[list[float], list[Ids]]:
    """Return milliseconds and results of every query, searched one after the other."""
    times, ids = [], []
    for number in range(len(queries)):
        query = queries[number : number + 1]
        begun = time.perf_counter()
        rows = search(query)
        times.append(1000 * (time.perf_counter() - begun))
        ids.append(rows)
    return times, ids

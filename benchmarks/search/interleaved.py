"""Searches of several methods timed in turn, each in a process of its own: what disturbs the machine meets all."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from eigenlens.benchmarks.search.peers import Ids, Vectors

Search = Callable[[Vectors], Ids]
_TURNS = 10
PASSES = 4
_WARM = 50


@dataclass(frozen=True)
class Contest:
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


@dataclass
class Times:
    """What the turns of one search came to.

    Attributes:
        milliseconds: of every query in every pass.
        found: ids of each query, in order.
    """

    params: Mapping[str, Any]
    milliseconds: list[float] = field(default_factory=list)
    found: list[Ids] = field(default_factory=list)


@dataclass
class Opened:
    """A method that is ready: what was measured of it by itself, and what is to be timed beside others."""

    values: list[dict[str, Any]]
    contests: list[Contest]


_opened: list[Contest] = []


def run_in_turns(
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
            values[method], contests = pools[method].submit(_open, opener, *args, method).result()
            times[method] = [Times(params) for _, _, params in contests]
            for number, (name, passes, _) in enumerate(contests):
                turns.setdefault(name, []).append((method, number, passes))
        for turn in tqdm(range(_TURNS * PASSES), desc="time", unit="turn"):
            for entrants in turns.values():
                first = turn % len(entrants)
                for method, number, passes in entrants[first:] + entrants[:first]:
                    if turn < _TURNS * passes:
                        took, found = pools[method].submit(_take_turn, number, turn % _TURNS).result()
                        times[method][number].milliseconds += took
                        if turn < _TURNS:
                            times[method][number].found += found
    return values, times


def in_process_of_its_own() -> ProcessPoolExecutor:
    """One new process, whose memory and threads are its own."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _open(
    opener: Callable[..., Opened], *args: Any
) -> tuple[list[dict[str, Any]], list[tuple[str, int, Mapping[str, Any]]]]:
    opened = opener(*args)
    _opened[:] = opened.contests
    return opened.values, [(contest.name, contest.passes, contest.params) for contest in opened.contests]


def _take_turn(number: int, turn: int) -> tuple[list[float], list[Ids]]:
    contest = _opened[number]
    places = np.array_split(np.arange(len(contest.queries)), _TURNS)[turn]
    search = contest.prepare()
    for place in np.arange(places[0] - _WARM, places[0]) % len(contest.queries) if contest.passes > 1 else ():
        search(contest.queries[place : place + 1])
    return time_each(search, contest.queries[places])


def time_each(search: Search, queries: Vectors) -> tuple[list[float], list[Ids]]:
    """Milliseconds and results of every query, one after the other."""
    times, found = [], []
    for number in range(len(queries)):
        query = queries[number : number + 1]
        begun = time.perf_counter()
        rows = search(query)
        times.append(1000 * (time.perf_counter() - begun))
        found.append(rows)
    return times, found

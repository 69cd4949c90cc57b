"""The batcher: what waits is done together, what is over costs nothing, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from eigenlens.service.errors import DeadlineError, OverloadedError, WouldWaitError
from eigenlens.service.search.batching import Batcher
from tests.support.service import wait_for


class Squares:
    """Answers numbers by their squares; even preparation takes as long as it is told."""

    def __init__(self, *, prepare_s: float = 0.0, finish_s: float = 0.0, **options: Any) -> None:
        self.prepare_s, self.finish_s = prepare_s, finish_s
        self.begun: list[int] = []
        self.prepared: list[int] = []
        self.batches: list[list[int]] = []
        self.observed: list[tuple[str, float]] = []
        self.held: set[int] | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.finish_gate = threading.Event()
        self.finish_gate.set()
        max_batch: int = options.pop("max_batch", 8)
        limits: dict[str, Any] = {"threads": 2, "max_waiting": 64, "deadline_s": 5.0}
        self.batcher: Batcher[int, int] = Batcher(
            self.prepare,
            self.finish,
            observe=lambda name, value: self.observed.append((name, value)),
            max_batch=lambda: max_batch,
            **limits | options,
        )

    def prepare(self, number: int) -> None:
        self.begun.append(number)
        if self.held is None or number in self.held:
            self.gate.wait(10)
        time.sleep(self.prepare_s)
        self.prepared.append(number)
        if number < 0:
            raise ValueError(f"{number} cannot be prepared")

    def finish(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        self.finish_gate.wait(10)
        time.sleep(self.finish_s)
        return [ValueError("1000 cannot be finished") if number == 1000 else number * number for number in numbers]


@pytest.fixture
def run() -> Iterator[Callable[[Squares, Callable[[Batcher[int, int]], Awaitable[Any]]], Any]]:
    opened: list[Squares] = []

    def run(squares: Squares, body: Callable[[Batcher[int, int]], Awaitable[Any]]) -> Any:
        opened.append(squares)

        async def main() -> Any:
            return await body(squares.batcher)

        return asyncio.run(main())

    yield run
    for squares in opened:
        squares.gate.set()
        squares.finish_gate.set()
        squares.batcher.close()


Run = Callable[[Squares, Callable[[Batcher[int, int]], Awaitable[Any]]], Any]


@pytest.mark.timing
def test_concurrent_requests_are_finished_together_and_each_gets_its_own_answer(run: Run) -> None:
    squares = Squares(finish_s=0.005)

    async def body(batcher: Batcher[int, int]) -> list[int]:
        return await asyncio.gather(*(batcher.run(number) for number in range(60)))

    assert run(squares, body) == [number * number for number in range(60)]
    assert sorted(number for batch in squares.batches for number in batch) == list(range(60))
    assert max(map(len, squares.batches)) == 8
    assert len(squares.batches) <= 20
    assert sorted(len(batch) for batch in squares.batches) == sorted(
        value for name, value in squares.observed if name == "batch"
    )
    assert sum(name == "queue" for name, _ in squares.observed) == 60


@pytest.mark.parametrize(
    ("threads", "max_batch", "waiting", "taken"),
    [
        pytest.param(2, 12, 12, 6, id="its share of many"),
        pytest.param(4, 8, 5, 4, id="a few whatever its share"),
        pytest.param(4, 3, 5, 3, id="no more than are to be together"),
    ],
)
def test_what_a_thread_takes_of_those_that_wait(
    run: Run, threads: int, max_batch: int, waiting: int, taken: int
) -> None:
    """All threads but one are held up; so many requests wait when that one is free."""
    squares = Squares(threads=threads, max_batch=max_batch, deadline_s=60.0)
    squares.held = set(range(2, threads + 1))
    squares.gate.clear()
    squares.finish_gate.clear()

    async def body(batcher: Batcher[int, int]) -> None:
        batcher._window_s = 60.0  # a slow machine has time to prepare them
        tasks = [asyncio.create_task(batcher.run(number)) for number in sorted(squares.held or ())]
        await asyncio.to_thread(wait_for, lambda: len(squares.begun) == threads - 1)
        tasks.append(asyncio.create_task(batcher.run(1)))
        await asyncio.to_thread(wait_for, lambda: squares.batches == [[1]])
        tasks += [asyncio.create_task(batcher.run(threads + 1 + number)) for number in range(waiting)]
        await asyncio.sleep(0)  # now they wait
        squares.finish_gate.set()
        await asyncio.to_thread(wait_for, lambda: len(squares.batches) > 1)
        squares.gate.set()
        await asyncio.gather(*tasks)

    run(squares, body)
    assert squares.batches[1] == list(range(threads + 1, threads + 1 + taken))
    assert sorted(number for batch in squares.batches for number in batch) == list(range(1, threads + 1 + waiting))


@pytest.mark.timing
def test_a_request_that_is_alone_waits_for_no_company(run: Run) -> None:
    squares = Squares(finish_s=0.02)

    async def body(batcher: Batcher[int, int]) -> list[float]:
        for number in range(30):  # the window has grown by now, were there anybody to wait for
            await batcher.run(number)
        squares.finish_s = 0.0
        times = []
        for number in range(30, 60):
            begun = time.perf_counter()
            await batcher.run(number)
            times.append(time.perf_counter() - begun)
        return sorted(times)

    assert run(squares, body)[10] < 0.003
    assert all(len(batch) == 1 for batch in squares.batches)


def test_a_batch_does_not_wait_for_a_request_that_is_long_in_preparation(run: Run) -> None:
    squares = Squares()
    squares.held = {1}

    async def body(batcher: Batcher[int, int]) -> None:
        squares.gate.clear()
        slow = asyncio.create_task(batcher.run(1))
        assert [await batcher.run(number) for number in range(2, 6)] == [4, 9, 16, 25]
        assert not slow.done()
        squares.gate.set()
        assert await slow == 1

    run(squares, body)


def test_a_bad_request_fails_alone(run: Run) -> None:
    squares = Squares(finish_s=0.005)

    async def body(batcher: Batcher[int, int]) -> list[int | BaseException]:
        return await asyncio.gather(*(batcher.run(n) for n in (1, -2, 3, 1000, 5)), return_exceptions=True)

    found = run(squares, body)
    assert [found[0], found[2], found[4]] == [1, 9, 25]
    assert "-2 cannot be prepared" in str(found[1])
    assert "1000 cannot be finished" in str(found[3])
    assert -2 not in [number for batch in squares.batches for number in batch]


@pytest.mark.timing
def test_what_is_over_the_bound_is_refused_at_once_and_room_is_made_again(run: Run) -> None:
    squares = Squares(max_waiting=3)

    async def body(batcher: Batcher[int, int]) -> None:
        squares.gate.clear()
        accepted = [asyncio.create_task(batcher.run(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert batcher.full
        begun = time.perf_counter()
        with pytest.raises(OverloadedError, match="3 searches are in progress"):
            await batcher.run(7)
        assert time.perf_counter() - begun < 0.1
        squares.gate.set()
        assert await asyncio.gather(*accepted) == [0, 1, 4]
        assert await batcher.run(7) == 49

    run(squares, body)
    assert 7 in squares.prepared


@pytest.mark.timing
def test_a_request_is_answered_at_its_deadline_and_then_costs_nothing(run: Run) -> None:
    squares = Squares(deadline_s=0.2)

    async def body(batcher: Batcher[int, int]) -> float:
        squares.gate.clear()
        begun = time.perf_counter()
        found = await asyncio.gather(*(batcher.run(number) for number in range(5)), return_exceptions=True)
        assert all(isinstance(error, DeadlineError) for error in found)
        took = time.perf_counter() - begun
        assert batcher.depth == 0
        squares.gate.set()
        await asyncio.to_thread(wait_for, lambda: len(squares.prepared) == 2)  # which the two threads had begun
        assert await batcher.run(9) == 81
        return took

    assert 0.2 <= run(squares, body) < 0.5
    assert sorted(squares.prepared) == [0, 1, 9]
    assert squares.batches == [[9]]


def test_a_request_whose_client_left_costs_nothing(run: Run) -> None:
    squares = Squares()

    async def body(batcher: Batcher[int, int]) -> None:
        squares.gate.clear()
        left = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await left.wait()
            return {"type": "http.disconnect"}

        blocking = [asyncio.create_task(batcher.run(number)) for number in range(2)]
        gone = [asyncio.create_task(batcher.run(number, receive=receive)) for number in range(2, 6)]
        cancelled = asyncio.create_task(batcher.run(6))
        await asyncio.sleep(0.15)
        left.set()
        cancelled.cancel()
        found = await asyncio.gather(*gone, cancelled, return_exceptions=True)
        assert [type(error) for error in found] == [ClientDisconnect] * 4 + [asyncio.CancelledError]
        assert batcher.depth == 2
        squares.gate.set()
        assert await asyncio.gather(*blocking) == [0, 1]
        assert await batcher.run(7) == 49

    run(squares, body)
    assert sorted(squares.prepared) == [0, 1, 7]


@pytest.mark.timing
def test_more_than_can_be_answered_in_time_is_refused_before_it_waits_in_vain(run: Run) -> None:
    squares = Squares(threads=1, max_batch=1, finish_s=0.02, deadline_s=0.2)

    async def body(batcher: Batcher[int, int]) -> list[Any]:
        for number in range(30):
            await batcher.run(number)
        return await asyncio.gather(*(batcher.run(number) for number in range(64)), return_exceptions=True)

    found = run(squares, body)
    refused = sum(type(answer) is OverloadedError for answer in found)
    assert refused >= 45
    assert sum(isinstance(answer, int) for answer in found) >= 5


def test_closing_finishes_what_was_accepted() -> None:
    squares = Squares(prepare_s=0.002)

    async def body() -> list[int]:
        accepted = [asyncio.create_task(squares.batcher.run(number)) for number in range(20)]
        await asyncio.sleep(0)
        await asyncio.to_thread(squares.batcher.close)
        return await asyncio.gather(*accepted)

    assert asyncio.run(body()) == [number * number for number in range(20)]


def test_light_requests_are_answered_together_on_the_event_loop(run: Run) -> None:
    squares = Squares(prepare_s=0.2)
    threads: set[threading.Thread] = set()

    def answer(numbers: Sequence[int]) -> list[int | Exception]:
        threads.add(threading.current_thread())
        squares.batches.append(list(numbers))
        return [number * number for number in numbers]

    squares.batcher.answer_at_once(lambda number: number < 100, answer)

    async def body(batcher: Batcher[int, int]) -> list[int]:
        return await asyncio.gather(*(batcher.run(number) for number in (*range(40), 100)))

    assert run(squares, body) == [number * number for number in (*range(40), 100)]
    assert threads == {threading.main_thread()}
    assert squares.batches == [[*range(16)], [*range(16, 32)], [*range(32, 40)], [100]]
    assert [value for name, value in squares.observed if name == "batch"] == [16, 16, 8, 1]


def test_light_requests_that_fail_or_have_to_wait_are_answered_by_threads(run: Run) -> None:
    squares = Squares()

    def answer(numbers: Sequence[int]) -> list[int | Exception]:
        raise WouldWaitError("somebody has the lock")

    squares.batcher.answer_at_once(lambda number: True, answer)

    async def body(batcher: Batcher[int, int]) -> list[int | BaseException]:
        return await asyncio.gather(*(batcher.run(number) for number in (3, -1)), return_exceptions=True)

    good, bad = run(squares, body)
    assert good == 9
    assert isinstance(bad, ValueError)


def test_light_requests_that_take_long_go_to_the_threads_for_a_while(run: Run) -> None:
    squares = Squares()
    on_loop: list[int] = []

    def answer(numbers: Sequence[int]) -> list[int | Exception]:
        on_loop.extend(numbers)
        time.sleep(0.3)
        return [number * number for number in numbers]

    squares.batcher.answer_at_once(lambda number: True, answer)

    async def body(batcher: Batcher[int, int]) -> list[int]:
        return [await batcher.run(number) for number in range(5)]

    assert run(squares, body) == [number * number for number in range(5)]
    assert on_loop == [0]
    assert squares.prepared == [1, 2, 3, 4]

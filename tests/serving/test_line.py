"""The line: its order, its batches, and whom it refuses."""

import asyncio
import threading
import time

import pytest

from stillroom.serving.line import Kind, Line
from stillroom.serving.refusals import Refused


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


class Works:
    """Doubles numbers, each in so many seconds, and remembers the batches."""

    def __init__(self, seconds=0.0):
        self.seconds, self.batches, self.gate = seconds, [], threading.Event()
        self.gate.set()

    def __call__(self, contents):
        self.gate.wait(10)
        self.batches.append(list(contents))
        time.sleep(self.seconds * len(contents))
        return [2 * number for number in contents]


def test_those_that_wait_are_computed_together_and_answered_in_order():
    async def body():
        works, line = Works(), Line("test", threads=1, deadline=5.0, batch=4)
        kind = Kind(works, 0.001)
        works.gate.clear()
        first = asyncio.create_task(line.ask(kind, [0]))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(line.ask(kind, [number])) for number in range(1, 7)]
        await asyncio.sleep(0.05)
        works.gate.set()
        assert await asyncio.gather(first, *rest) == [[2 * number] for number in range(7)]
        assert works.batches == [[0], [1, 2, 3, 4], [5, 6]]
        line.end()

    run(body())


def test_only_what_is_of_one_kind_is_computed_together():
    async def body():
        works, others, line = Works(), Works(), Line("test", threads=1, deadline=5.0)
        kind, other = Kind(works, 0.001), Kind(others, 0.001)
        works.gate.clear()
        first = asyncio.create_task(line.ask(kind, [0]))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(line.ask(other if number % 2 else kind, [number])) for number in range(1, 6)]
        await asyncio.sleep(0.05)
        works.gate.set()
        await asyncio.gather(first, *rest)
        assert (works.batches, others.batches) == ([[0], [2, 4]], [[1, 3, 5]])
        line.end()

    run(body())


def test_a_line_is_full_where_half_the_deadline_would_be_waited_and_empties():
    async def body():
        works, line = Works(0.05), Line("test", threads=1, deadline=1.0, batch=1)
        kind = Kind(works, 0.05)
        tasks = [asyncio.create_task(line.ask(kind, [number])) for number in range(40)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Refused)]
        assert results[:8] == [[2 * number] for number in range(8)]
        assert 28 <= len(refused) <= 32
        assert {(one.status, one.headers["retry-after"]) for one in refused} == {(503, "1")}
        assert await line.ask(kind, [1]) == [2]
        assert line.wait == 0
        line.end()

    run(body())


def test_who_finds_nobody_before_it_is_never_refused():
    async def body():
        line = Line("test", threads=1, deadline=0.1)
        assert await line.ask(Kind(Works(), 1000.0), [1, 2, 3]) == [2, 4, 6]
        line.end()

    run(body())


def test_whose_turn_comes_too_late_is_told_so_and_not_computed():
    async def body():
        works, line = Works(), Line("test", threads=1, deadline=0.2, batch=1)
        kind = Kind(works, 0.001)
        works.gate.clear()
        tasks = [asyncio.create_task(line.ask(kind, [number])) for number in range(3)]
        await asyncio.sleep(0.4)
        works.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == [0]
        assert [result.status for result in results[1:]] == [503, 503]
        assert works.batches == [[0]]
        line.end()

    run(body())


def test_an_exception_reaches_those_that_it_belongs_to():
    async def body():
        line = Line("test", threads=1, deadline=5.0)

        def fails(contents):
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await line.ask(Kind(fails, 0.01), [1])
        assert await line.ask(Kind(Works(), 0.01), [1]) == [2]
        line.end()

    run(body())


def test_the_estimate_follows_what_is_measured():
    kind = Kind(Works(), 5.0)
    kind.learn(0.1, [1])
    assert kind.seconds == 0.1
    for _ in range(30):
        kind.learn(0.4, [1, 2])
    assert kind.seconds == pytest.approx(0.2, abs=0.001)


@pytest.mark.parametrize("timed", [False, True])
def test_what_was_not_computed_never_lets_the_estimate_fall(timed):
    kind = Kind(Works(), 0.2, computed=lambda result: result is not None)
    if timed:
        kind.learn(0.2, [1])
    for _ in range(50):
        kind.learn(0.001, [None, Refused(400, "", "damaged")])
    assert (kind.seconds, kind.timed) == (0.2, timed)
    kind.learn(0.2, [1, None, None, None])
    assert kind.seconds == pytest.approx(0.2)
    for _ in range(50):
        kind.learn(2.0, [None, None])
    assert kind.seconds == pytest.approx(1.0, abs=0.001)


def test_those_that_wait_already_cost_what_was_learnt_since():
    async def body():
        works, line = Works(0.1), Line("test", threads=1, deadline=1.0, batch=1)
        kind = Kind(works, 0.0001)
        first = [asyncio.create_task(line.ask(kind, [number])) for number in range(8)]
        await first[0]
        assert 0.5 < line.wait < 1.0
        with pytest.raises(Refused):
            await line.ask(kind, [8])
        await asyncio.gather(*first)
        line.end()

    run(body())

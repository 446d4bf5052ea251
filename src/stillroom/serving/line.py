"""The line in which images wait for a thread: in order, in small batches, and only as many as are answered in time.

How long whoever comes last would wait is known: what stands before it, at what each has cost lately. Where that is longer
than the deadline, it is told so at once, instead of after it has waited.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from stillroom.serving.refusals import Refused

BATCH = 8
"""Images that are computed together: more are hardly faster on a CPU, and the first would wait for the last."""
FULL = 0.5
"""Share of the deadline up to which the line is filled: the rest is for images that cost more than those before."""
_LEARNT = 0.2  # share of a new measurement in the estimate
_SEEN = 64  # places of the line that are looked through for images of the same kind


@dataclass(eq=False)
class Kind:
    """What is computed together, and costs alike.

    Attributes:
        do: what is done with up to a batch of contents, in a thread: a result for each.
        seconds: that one of them takes of a thread: a guess, and then what they took lately.
        computed: whether a result cost what such results cost; what could not be read or was refused did not.
    """

    do: Callable[[Sequence[Any]], Sequence[Any]]
    seconds: float
    computed: Callable[[Any], bool] = lambda result: True
    timed: bool = False

    def learn(self, seconds: float, results: Sequence[Any]) -> None:
        """Heed what these results took together.

        Only those that were computed are counted. Where none was, the estimate never falls: many damaged files, which are
        soon done with, would let in more real images than are answered in time. It rises, for they hold a thread too.
        """
        computed = sum(not isinstance(one, BaseException) and self.computed(one) for one in results)
        each = seconds / (computed or len(results))
        if computed:
            self.seconds = self.seconds + _LEARNT * (each - self.seconds) if self.timed else each
            self.timed = True
        elif each > self.seconds:
            self.seconds += _LEARNT * (each - self.seconds)


@dataclass(eq=False)
class Unit:
    """One image that waits, or anything that a thread does in one go.

    Attributes:
        kind: what is done with it.
        content: what :attr:`Kind.do` is given.
        answer: where its result is put.
        expires: monotonic time after which nobody waits for it.
    """

    kind: Kind
    content: Any
    answer: asyncio.Future[Any]
    expires: float


class Line:
    """A line with its threads. All but :meth:`_serve` and what it calls runs in the event loop's thread.

    Args:
        name: of its threads.
        threads: how many batches are computed at a time.
        deadline: seconds within which a unit that is accepted is to be answered.
        batch: units that are computed together.

    Attributes:
        tell_batch: is told of every batch how many units it had.
        tell_waiting: is told how many units wait or are being computed, whenever that changes.
    """

    def __init__(self, name: str, *, threads: int, deadline: float, batch: int = BATCH) -> None:
        self.deadline, self.batch = deadline, batch
        self.tell_batch: Callable[[int], object] = lambda units: None
        self.tell_waiting: Callable[[int], object] = lambda units: None
        self._threads = threads
        self._units: deque[Unit] = deque()
        self._in_line = Counter[Kind]()
        self._there, self._ended = threading.Condition(), False
        for number in range(threads):
            threading.Thread(target=self._serve, name=f"{name}-{number}", daemon=True).start()

    @property
    def wait(self) -> float:
        """Seconds until a unit that comes now would have its turn."""
        return sum(kind.seconds * units for kind, units in self._in_line.items()) / self._threads

    @property
    def full(self) -> bool:
        """Whether one more unit would be refused. One that finds nobody before it never is."""
        return bool(self._in_line) and self.wait > FULL * self.deadline

    def refuse_if_full(self) -> None:
        """Raises :class:`Refused` with 503 and when to come again."""
        if self.full:
            raise self.busy()

    def busy(self) -> Refused:
        """What is told to whom there is no room for."""
        again = max(1, math.ceil(self.wait))
        text = (
            f"Too many images are waiting: this one would wait longer than {self.deadline:g} s. Ask again in {again} s."
        )
        return Refused(503, text, "busy", {"retry-after": str(again)})

    async def ask(self, kind: Kind, contents: Sequence[Any]) -> list[Any]:
        """The results for these contents, in order.

        Raises:
            Refused: there is no room for so many, or their turn came too late.
            Exception: what was raised in the thread.
        """
        loop, cost = asyncio.get_running_loop(), kind.seconds
        last = self.wait + cost * (len(contents) - 1) / self._threads  # of one, no more than the gate has asked already
        if self._in_line and last > FULL * self.deadline:
            raise self.busy()
        expires = time.monotonic() + max(self.deadline, 2 * cost * len(contents) / self._threads)
        units = [Unit(kind, content, loop.create_future(), expires) for content in contents]
        self._in_line[kind] += len(units)
        self.tell_waiting(self._in_line.total())
        with self._there:
            self._units.extend(units)
            self._there.notify(len(units))
        results = await asyncio.gather(*(unit.answer for unit in units), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return list(results)

    def end(self) -> None:
        """Let the threads end when the line is empty."""
        with self._there:
            self._ended = True
            self._there.notify_all()

    # -- threads ------------------------------------------------------------------------------------------------------
    def _serve(self) -> None:
        while units := self._next():
            start = time.perf_counter()
            late = time.monotonic()
            timely = [unit for unit in units if unit.expires > late]
            results: Sequence[Any] = ()
            if timely:
                try:
                    results = timely[0].kind.do([unit.content for unit in timely])
                except Exception as error:
                    results = [error] * len(timely)
            taken = time.perf_counter() - start
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
                units[0].answer.get_loop().call_soon_threadsafe(self._settle, units, timely, results, taken)

    def _next(self) -> list[Unit]:
        """The first unit and those of its kind behind it, up to a batch; none when all is over."""
        with self._there:
            while not self._units:
                if self._ended:
                    return []
                self._there.wait()
            first = self._units.popleft()
            chosen, passed = [first], list[Unit]()
            while self._units and len(chosen) < self.batch and len(passed) < _SEEN:
                unit = self._units.popleft()
                (chosen if unit.kind is first.kind else passed).append(unit)
            self._units.extendleft(reversed(passed))
            return chosen

    def _settle(self, units: list[Unit], timely: list[Unit], results: Sequence[Any], taken: float) -> None:
        kind = units[0].kind
        self._in_line[kind] -= len(units)
        if not self._in_line[kind]:
            del self._in_line[kind]  # or it would keep a model that was exchanged
        self.tell_waiting(self._in_line.total())
        if timely:
            kind.learn(taken, results)
            self.tell_batch(len(timely))
        given = dict(zip(timely, results, strict=True))
        for unit in units:
            result = given[unit] if unit in given else self.busy()
            if unit.answer.done():  # whoever asked has gone
                continue
            if isinstance(result, BaseException):
                unit.answer.set_exception(result)
            else:
                unit.answer.set_result(result)

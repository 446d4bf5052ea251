"""Progress with the time left: a bar on a terminal, a line now and then in a log. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

Advance = Callable[..., None]
_LINE_EVERY_S = 15.0
_TRUSTED_S = 10.0
"""From so many expected seconds on, what they really took corrects what is expected of the rest."""


class Journey:
    """How far a job of several stages has come, whatever their order.

    Args:
        stages: seconds expected of each; None where nobody knows.
        done: stages that an earlier attempt has been through.
    """

    def __init__(self, stages: dict[str, float | None], done: Collection[str] = ()) -> None:
        self.stages = stages
        self.entered = [stage for stage in stages if stage in done]
        self.current = ""
        self._visited: set[str] = set()
        self._since = self._spent = self._expected = 0.0

    def enter(self, stage: str) -> bool:
        """Note that ``stage`` goes on; returns whether it began just now. None is begun again, as within repeats."""
        if stage in self._visited or stage not in self.stages:
            return False
        self._visited.add(stage)
        now = time.monotonic()
        if self.current and (expected := self.stages[self.current]) is not None:
            self._spent += now - self._since
            self._expected += expected
        self.current, self._since = stage, now
        if stage not in self.entered:
            self.entered.append(stage)
        return True

    def where(self, left_here: float | None = None) -> str:
        """E.g. ``stage 2 of 7, about 18 min left for all``; ``left_here`` seconds of this stage's own bar, if it has one."""
        place = f"stage {len(self.entered)} of {len(self.stages)}"
        left = self.left(left_here)
        return place if left is None else f"{place}, about {duration(left)} left for all"

    def left(self, left_here: float | None) -> float | None:
        """Seconds left for all stages; None where nothing is expected."""
        expected = [seconds for stage, seconds in self.stages.items() if stage not in self.entered]
        here = self.stages.get(self.current)
        if here is None or any(seconds is None for seconds in expected):
            return None
        # A machine that is slower than it was when timed will be so in what follows, too.
        pace = self._spent / self._expected if self._expected >= _TRUSTED_S else 1.0
        rest = max(here * pace - (time.monotonic() - self._since), 0.0)
        return max(left_here or 0.0, rest if left_here is None else 0.0) + pace * sum(
            s for s in expected if s is not None
        )


_JOURNEY: ContextVar[Journey | None] = ContextVar("journey", default=None)


@contextmanager
def journey(stages: dict[str, float | None], done: Collection[str] = (), *, enabled: bool = True) -> Iterator[None]:
    """Inside this block progress says which stage of how many is under way, and the time left for all.

    Args:
        stages: see :class:`Journey`.
        done: see :class:`Journey`.
        enabled: False shows nothing.
    """
    token = _JOURNEY.set(Journey(stages, done) if enabled else None)
    try:
        yield
    finally:
        _JOURNEY.reset(token)


def enter(stage: str) -> None:
    """Note that a stage goes on; one that the journey does not have is passed over.

    A terminal gets a line for each; logs have theirs in the bars' lines.
    """
    under_way = _JOURNEY.get()
    if under_way is not None and under_way.enter(stage) and sys.stderr.isatty():
        where = under_way.where()
        print(f"{where[0].upper()}{where[1:]}: {stage}", file=sys.stderr, flush=True)


@lru_cache(maxsize=1024)
def remark(text: str) -> None:
    """Say one line to people on standard error; the same line only once in a process."""
    print(text, file=sys.stderr, flush=True)


def size_in_words(count: float) -> str:
    """A number of bytes, for people: ``524 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


@contextmanager
def progress(label: str, total: int, *, done: int = 0, enabled: bool = True) -> Iterator[Advance]:
    """Show how far ``label`` has come.

    Yields ``advance(steps=1, note="")``: call it as work is done; ``note`` replaces the text behind the bar. On a
    terminal this is a bar with the remaining time that vanishes when it ends. Elsewhere a plain line is
    written at most every 15 seconds, so that logs stay short.

    Args:
        label: what is being done, e.g. ``student``.
        total: number of steps.
        done: steps already done, for a resumed job.
        enabled: False shows nothing.
    """
    if not enabled or total <= 0:
        yield lambda steps=1, note="": None
    elif sys.stderr.isatty():
        with _bar(label, total, done) as advance:
            yield advance
    else:
        yield _lines(label, total, done)


@contextmanager
def _bar(label: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    under_way = _JOURNEY.get()

    class Bars(Progress):
        """With a line below that tells of all stages."""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            if under_way is not None:
                yield Text(under_way.where(self.tasks[0].time_remaining if self.tasks else None), style="dim")

    columns = (
        TextColumn("{task.description:<15}", table_column=Column(no_wrap=True, min_width=15)),
        BarColumn(bar_width=30),  # the part that gives way on a narrow terminal
        TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True, min_width=4)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("left", table_column=Column(no_wrap=True, min_width=4)),
        TextColumn("[dim]{task.fields[note]}[/dim]"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(label, total=total, completed=done, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bars.update(bar, advance=steps)
            if note:
                bars.update(bar, note=note)

        yield advance


def _lines(label: str, total: int, done: int) -> Advance:
    start = last = time.monotonic()
    under_way = _JOURNEY.get()
    count = done

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal count, last
        count += steps
        now = time.monotonic()
        if now - last < _LINE_EVERY_S or count >= total:
            return
        last = now
        left = (now - start) / max(count - done, 1) * (total - count)
        text = f"{label}: {100 * count / total:.0f} %, about {duration(left)} left"
        if under_way is not None:
            text += f"; {under_way.where(left)}"
        print(f"{text}; {note}" if note else text, file=sys.stderr, flush=True)

    return advance


def duration(seconds: float) -> str:
    """Seconds in words, for people who wait."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

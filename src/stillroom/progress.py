"""Progress with the time left: a bar on a terminal, a line now and then in a log. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[..., None]
_LINE_EVERY_S = 15.0


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
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description:<15}", table_column=Column(no_wrap=True, min_width=15)),
        BarColumn(bar_width=30),  # the part that gives way on a narrow terminal
        TextColumn("{task.percentage:>3.0f}%", table_column=Column(no_wrap=True, min_width=4)),
        TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("left", table_column=Column(no_wrap=True, min_width=4)),
        TextColumn("[dim]{task.fields[note]}[/dim]"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(label, total=total, completed=done, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bars.update(bar, advance=steps)
            if note:
                bars.update(bar, note=note)

        yield advance


def _lines(label: str, total: int, done: int) -> Advance:
    start = last = time.monotonic()
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
        print(f"{text}; {note}" if note else text, file=sys.stderr, flush=True)

    return advance


def duration(seconds: float) -> str:
    """Seconds in words, for people who wait."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

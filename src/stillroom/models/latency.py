"""Which networks are small and quick enough for a device: of the listed students and of the OFA space.

The space holds more networks than can be tried. Their sizes follow from a formula; of those that are small enough some
are timed, a line fitted to these times foretells the others', and those that may be quick enough are timed too. What
is foretold is never shown.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import NamedTuple, NoReturn

from stillroom.errors import UsageError
from stillroom.models.cards import ModelCard, describe
from stillroom.models.catalogue import STUDENTS, find, names
from stillroom.models.ofa_space import OfaConfig, sample
from stillroom.progress import Advance, progress

DRAWN = 2000
"""Networks drawn from the OFA space; only their sizes are computed."""
SHOWN = 12
"""Of these, the most that are described or timed beside the first few."""
FIRST = 6
"""Timed before any time is foretold."""
MARGIN = 1.2
"""What is foretold may be wrong by a fifth: networks up to this much above the budget are timed too."""


@dataclass(frozen=True)
class Budget:
    """What a device can bear.

    Attributes:
        max_mb: float32 parameters in 10^6 bytes, or None.
        max_ms: median milliseconds for one image, or None.
        size: side of the image in pixels.
        classes: of the classifier.
        threads: that compute.
    """

    max_mb: float | None
    max_ms: float | None
    size: int
    classes: int
    threads: int

    def __post_init__(self) -> None:
        for flag, value in (("--max-mb", self.max_mb), ("--max-ms", self.max_ms)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{flag} must be above 0, got {value:g}.")

    def __str__(self) -> str:
        size = [f"of at most {self.max_mb:g} MB"] if self.max_mb is not None else []
        latency = [f"answers within {self.max_ms:g} ms"] if self.max_ms is not None else []
        return " ".join([*size, *latency])

    def light(self, card: ModelCard) -> bool:
        return self.max_mb is None or card.megabytes <= self.max_mb

    def quick(self, card: ModelCard) -> bool:
        return self.max_ms is None or (card.latency_ms is not None and card.latency_ms <= self.max_ms)


class Found(NamedTuple):
    """What is within a budget, and the names that were left out because they take no images of its size."""

    cards: list[ModelCard]
    left_out: list[str]


def within(budget: Budget, pattern: str | None = None, *, measure: bool = False, show_progress: bool = True) -> Found:
    """Networks within the budget: quickest first where they were timed, else those with fewest multiply-adds first.

    Args:
        budget: at least one limit.
        pattern: a glob that names must match. Default: the listed students and some networks of the OFA space.
        measure: time them even where the budget does not limit the time.
        show_progress: whether to show a bar while networks are timed.

    Raises:
        UsageError: nothing is within the budget (the message names what comes nearest), or nothing has such a name.
    """
    students, points = _candidates(pattern)
    described = _described(students, budget)
    cards = [card for card in described if card.macs is not None]
    left_out = [card.name for card in described if card.macs is None]
    points = sorted(points, key=lambda point: point.parameters(budget.classes))
    light = [point for point in points if _megabytes(point, budget) <= (budget.max_mb or math.inf)]
    if not light and not any(map(budget.light, cards)):
        _refuse(budget, cards + _described([point.name for point in points[:1]], budget), "megabytes")
    cards = list(filter(budget.light, cards))
    light = sorted(light, key=lambda point: point.macs(budget.size, budget.classes))
    if budget.max_ms is None and not measure:
        cards += _described([point.name for point in _spread(light, SHOWN)], budget)
        return Found(sorted(cards, key=lambda card: (card.macs, card.name)), left_out)

    first = _spread(light, FIRST)
    cards = cards + _described([point.name for point in first], budget)
    cards = timed(cards, classes=budget.classes, threads=budget.threads, show_progress=show_progress)
    rest = [point for point in light if point not in first]
    if rest and budget.max_ms is not None:
        times = {card.name: card.latency_ms or 0.0 for card in cards}
        foretold = _foretell(first, [times[point.name] for point in first], rest, budget)
        rest = [point for point, ms in zip(rest, foretold, strict=True) if ms <= MARGIN * budget.max_ms]
    others = _described([point.name for point in _spread(rest, SHOWN)], budget)
    cards += timed(others, classes=budget.classes, threads=budget.threads, show_progress=show_progress)
    found = sorted(filter(budget.quick, cards), key=lambda card: (card.latency_ms, card.name))
    if not found:
        _refuse(budget, cards, "latency_ms")
    return Found(found, left_out)


def timed(cards: list[ModelCard], *, classes: int | None, threads: int, show_progress: bool = True) -> list[ModelCard]:
    """The cards with the median latency of one image of their ``size`` on this machine's processor.

    Networks that take no images of that size keep None.

    Args:
        cards: see :func:`~stillroom.models.catalogue.describe`.
        classes: of the classifier; None stands for 1000.
        threads: of torch, at least 1.
        show_progress: whether to show a bar.

    Raises:
        UsageError: ``threads`` is below 1.
    """
    if threads < 1:
        raise UsageError(f"--threads must be at least 1, got {threads}.")
    from stillroom.models.efficiency import profile
    from stillroom.models.zoo import create

    def one(card: ModelCard, advance: Advance) -> ModelCard:
        if card.macs is None:
            return card
        advance(0, card.name)
        network = create(card.name, classes=classes or 1000, size=card.size)
        measured = profile(network, channels=3, size=card.size, batches=(1,))
        advance()
        return replace(card, latency_ms=round(measured["latency_ms"]["batch_1"]["median"], 3))

    with _threads(threads), progress("timing networks", len(cards), enabled=show_progress) as advance:
        return [one(card, advance) for card in cards]


def _candidates(pattern: str | None) -> tuple[list[str], list[OfaConfig]]:
    """Names to look at, and networks of the OFA space."""
    points = sample(DRAWN)
    if pattern is None:
        return list(STUDENTS), points
    points = [point for point in points if fnmatch(point.name, pattern)]
    found = [name for name in names() if fnmatch(name, pattern)]
    return (found if found or points else find(pattern)), points


def _described(wanted: list[str], budget: Budget) -> list[ModelCard]:
    return describe(wanted, size=budget.size, classes=budget.classes)


def _megabytes(point: OfaConfig, budget: Budget) -> float:
    return 4 * point.parameters(budget.classes) / 1e6


def _spread(points: list[OfaConfig], count: int) -> list[OfaConfig]:
    """At most ``count`` of them, first and last among these, the rest evenly between."""
    if len(points) <= count:
        return points
    return [points[round(index * (len(points) - 1) / (count - 1))] for index in range(count)]


def _foretell(measured: list[OfaConfig], times: list[float], wanted: list[OfaConfig], budget: Budget) -> list[float]:
    """Milliseconds for ``wanted``, from a share per block and one per multiply-add fitted to what was measured."""
    import numpy as np
    from scipy.optimize import nnls

    def shares(points: list[OfaConfig]) -> np.ndarray:
        return np.array([[len(point.blocks()), point.macs(budget.size, budget.classes) / 1e6] for point in points])

    weights, _ = nnls(shares(measured), np.array(times))
    return list(shares(wanted) @ weights)


def _refuse(budget: Budget, cards: list[ModelCard], by: str) -> NoReturn:
    """Raise UsageError naming the card that comes nearest."""
    at = f"with {budget.classes} classes" if by == "megabytes" else ""
    if budget.max_ms is not None:
        threads = "1 thread" if budget.threads == 1 else f"{budget.threads} threads"
        at = f"at {budget.size} px with {budget.classes} classes and {threads} on this machine"
    if not cards:
        raise UsageError(f"None of these networks takes images of {budget.size} px. Give another --size.")
    nearest = min(cards, key=lambda card: getattr(card, by))
    figures = f"{nearest.megabytes:.1f} MB"
    if nearest.latency_ms is not None:
        figures += f" and {nearest.latency_ms:.2f} ms"
    busy = ""
    if nearest.latency_ms is not None and hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1):
        busy = " This machine is busy with other work, which makes every latency longer."
    raise UsageError(f"No network {budget} {at}. The nearest is {nearest.name} with {figures}.{busy}")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

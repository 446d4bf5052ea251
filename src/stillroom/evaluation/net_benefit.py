"""Decision curves: what acting on the calibrated probabilities is worth, against acting on every image and on none.

Who acts from a threshold probability ``t`` on holds one found case for worth as much as ``(1 - t) / t`` false alarms. The
net benefit counts so: cases found less ``t / (1 - t)`` for each false alarm, per image (Vickers and Elkin, 2006). That of
acting on none is 0.

A net benefit is a difference of two shares, of true and of false alarms; so is its advantage over acting on every image,
``t / (1 - t)`` times the rightly left alone less the missed. Each share has the interval of all figures
(:mod:`stillroom.evaluation.effective`), and the difference the one that follows from the two and their correlation (MOVER:
Zou and Donner, 2008), which keeps its promise where alarms are few and dear. proofs/operating_points.py simulates both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.evaluation.effective import shares
from stillroom.evaluation.intervals import divide, draw
from stillroom.evaluation.questions import answers, chances, question_names
from stillroom.evaluation.roles import noun
from stillroom.task import Task

THRESHOLDS = np.arange(1, 100) / 100
"""Threshold probabilities; the ``T`` places of a curve."""
_DIGITS = 6
_MOST_RANGES = 3


@dataclass(frozen=True)
class Curve:
    """One network's net benefit for one question, ``[T]`` each, with 95 % intervals; NaN for none.

    Attributes:
        value, low, high: of acting by the network.
        all: of acting on every image.
        gain, gain_low, gain_high: of the network, less that of acting on every image.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    all: np.ndarray
    gain: np.ndarray
    gain_low: np.ndarray
    gain_high: np.ndarray

    @property
    def better(self) -> np.ndarray:
        """``[T]`` bool: where the network is surely better than acting on every image and than acting on none."""
        return (self.low > 0) & (self.gain_low > 0)


def net_benefit(chance: np.ndarray, truth: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> np.ndarray:
    """Of ``[N]`` probabilities for ``[N]`` bool truth, at ``[T]`` thresholds from which one acts: ``[T]``."""
    true, false = (_at_or_above(chance[side], thresholds) for side in (truth, ~truth))
    return (true - false * _price(thresholds)) / len(truth)


def curve(
    chance: np.ndarray, truth: np.ndarray, members: np.ndarray | None, thresholds: np.ndarray = THRESHOLDS
) -> Curve:
    """The decision curve with intervals.

    Args:
        chance: ``[N]`` calibrated probabilities.
        truth: ``[N]`` bool.
        members: ``[N]`` whole numbers from 0, equal for images of one patient; None where no patient is known.
        thresholds: ``[T]`` ascending, in (0, 1).
    """
    price, images = _price(thresholds), len(truth)
    positives = int(truth.sum())
    raised = [
        _Counts.of(chance[side], thresholds, None if members is None else members[side]) for side in (truth, ~truth)
    ]
    spared = [each.rest() for each in raised]
    of_units = None if members is None else np.bincount(members).astype(np.float64)
    value, low, high = _difference(raised[0], raised[1], np.ones_like(price), price, images, of_units)
    gain, gain_low, gain_high = _difference(spared[1], spared[0], price, np.ones_like(price), images, of_units)
    every = positives / images - price * (1 - positives / images)
    return Curve(value, low, high, every, gain, gain_low, gain_high)


@dataclass(frozen=True)
class _Counts:
    """Images at or above each threshold (or below it).

    Attributes:
        total: ``[T]`` in all.
        units: ``[M]`` numbers of the patients who have images of this side; empty where patients are not known.
        by_unit: ``[M, T]`` of each of them.
        whole: ``[M]`` all images of this side of each; ``[1]`` of all together where patients are not known.
    """

    total: np.ndarray
    units: np.ndarray
    by_unit: np.ndarray
    whole: np.ndarray

    @classmethod
    def of(cls, chance: np.ndarray, thresholds: np.ndarray, members: np.ndarray | None) -> _Counts:
        total, width = _at_or_above(chance, thresholds), len(thresholds) + 1
        if members is None:
            return cls(total, np.zeros(0, np.int64), np.zeros((0, width - 1), np.float32), np.array([len(chance)]))
        units, places = np.unique(members, return_inverse=True)
        reached = np.searchsorted(thresholds, chance, side="right")
        cells = np.bincount(places * width + reached, minlength=len(units) * width).reshape(len(units), width)
        above = np.cumsum(cells[:, ::-1], axis=1, dtype=np.float32)[:, ::-1]
        return cls(total, units, above[:, 1:], above[:, 0])

    def rest(self) -> _Counts:
        """Of the same images those on the other side of each threshold."""
        by_unit = self.whole[:, None] - self.by_unit if len(self.units) else self.by_unit
        return _Counts(float(self.whole.sum()) - self.total, self.units, by_unit, self.whole)


def _difference(
    plus: _Counts, minus: _Counts, worth: np.ndarray, price: np.ndarray, images: int, of_units: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``worth`` times one share less ``price`` times another, of images that exclude each other: value and ends, ``[T]``."""
    first, second = plus.total / images, minus.total / images
    (one, one_by), (two, two_by) = (_spread(part, images, of_units) for part in (plus, minus))
    together = -first * second / images
    if of_units is not None:
        together = _covariance(plus, minus, images, of_units)
    correlation = np.clip(divide(together, np.sqrt(one * two)), -1, 1)
    correlation = np.where(np.isnan(correlation), 0, correlation)
    units = float(images if of_units is None else len(of_units))
    ends = [
        shares(share, spread, by, np.full(len(share), float(images)), np.full(len(share), units))
        for share, spread, by in ((first, one, one_by), (second, two, two_by))
    ]
    value = worth * first - price * second
    down = worth * (first - ends[0][0]), price * (ends[1][1] - second)
    up = worth * (ends[0][1] - first), price * (second - ends[1][0])
    low, high = (np.sqrt(a**2 + b**2 - 2 * correlation * a * b) for a, b in (down, up))
    return value, value - low, value + high


def _spread(counts: _Counts, images: int, of_units: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Variance of a share of all images, and how many images or patients move it (Kish): ``[T]`` each."""
    share = counts.total / images
    single = share * (1 - share) / images
    if of_units is None:
        second = counts.total * (1 - share) ** 2 + (images - counts.total) * share**2
        fourth = counts.total * (1 - share) ** 4 + (images - counts.total) * share**4
        return single, np.nan_to_num(divide(second**2, fourth))
    there = of_units[counts.units]
    others = (
        np.bincount(np.delete(of_units, counts.units).astype(np.int64)) if len(there) < len(of_units) else np.zeros(1)
    )
    squares = (counts.by_unit - there[:, None] * share) ** 2
    # Patients without such images differ by their size alone.
    rest = (np.arange(len(others))[:, None] * share) ** 2
    second = squares.sum(axis=0) + others @ rest
    fourth = (squares**2).sum(axis=0) + others @ rest**2
    return np.maximum(second / images**2, single), np.nan_to_num(divide(second**2, fourth))


def _covariance(plus: _Counts, minus: _Counts, images: int, of_units: np.ndarray) -> np.ndarray:
    """Of two shares of all images, drawn by whole patients: ``[T]``."""
    first, second = plus.total / images, minus.total / images
    _, here, there = np.intersect1d(plus.units, minus.units, assume_unique=True, return_indices=True)
    both = (plus.by_unit[here] * minus.by_unit[there]).sum(axis=0, dtype=np.float64)
    one = (plus.by_unit * of_units[plus.units, None].astype(np.float32)).sum(axis=0, dtype=np.float64)
    two = (minus.by_unit * of_units[minus.units, None].astype(np.float32)).sum(axis=0, dtype=np.float64)
    return (both - second * one - first * two + first * second * (of_units**2).sum()) / images**2


def _at_or_above(chance: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    reached = np.bincount(np.searchsorted(thresholds, chance, side="right"), minlength=len(thresholds) + 1)
    return np.cumsum(reached[::-1])[::-1][1:].astype(np.float64)


def _price(thresholds: np.ndarray) -> np.ndarray:
    return thresholds / (1 - thresholds)


def curves_report(
    task: Task,
    probabilities: Mapping[str, np.ndarray],
    targets: np.ndarray,
    patients: np.ndarray | None,
    *,
    role: str,
) -> dict[str, Any]:
    """Decision curves of every question, ready for JSON.

    Args:
        task: what the probabilities mean.
        probabilities: role to ``[N, K]`` calibrated ones of the test images.
        targets: in the task's form.
        patients: ``[N]`` str, ``""`` where unknown; None where none is known.
        role: of the network that is handed over, which alone has intervals and claims.

    Returns:
        ``role``; ``thresholds``, ``[T]``; ``curves``: by question ``share`` (of images with the finding), ``all`` ``[T]``,
        ``networks`` (by role ``[T]`` net benefits), ``low`` and ``high`` ``[T]``, ``better`` (first and last threshold of
        each range in which ``role`` is surely better than acting on every image and on none) and ``statement``. A question
        whose answer is the same for all images is left out.
    """
    truth, members = answers(task, targets), draw(len(targets), 0, 0, patients).members
    chance = {name: chances(task, p) for name, p in probabilities.items()}
    found: dict[str, Any] = {}
    for number, question in enumerate(question_names(task)):
        ill = truth[:, number]
        if not 0 < ill.sum() < len(ill):
            continue
        own = curve(chance[role][:, number], ill, members)
        better = ranges(own.better)
        found[question] = {
            "share": float(ill.mean()),
            "all": _rounded(own.all),
            "networks": {name: _rounded(net_benefit(p[:, number], ill)) for name, p in chance.items()},
            "low": _rounded(own.low),
            "high": _rounded(own.high),
            "better": better,
            "statement": _statement(question, noun(role), better),
        }
    return {"role": role, "thresholds": THRESHOLDS.tolist(), "curves": found}


def ranges(mask: np.ndarray) -> list[tuple[float, float]]:
    """First and last threshold of each run of ``[T]`` bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(float(THRESHOLDS[first]), float(THRESHOLDS[last - 1])) for first, last in edges.reshape(-1, 2)]


def _statement(question: str, who: str, better: Sequence[tuple[float, float]]) -> str:
    """One sentence for people."""
    against = "than flagging every image and than flagging none"
    if not better:
        return f"{question}: at no threshold probability is flagging by the {who} shown to be better {against}."
    longest = sorted(sorted(better, key=lambda part: part[0] - part[1])[:_MOST_RANGES])
    parts = [f"at {first:.2f}" if first == last else f"from {first:.2f} to {last:.2f}" for first, last in longest]
    told = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    return f"{question}: flagging by the {who} is surely better {against} at threshold probabilities {told}."


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), _DIGITS) for value in values]

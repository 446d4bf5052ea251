"""Intervals of figures and of paired differences from how far each image (or patient) moves them, without resampling.

**A figure** on a scale from 0 to 1 is treated as a share of an effective number of images, the number of which a plain
share would vary as much: ``n = p (1 - p) / V`` (Kish 1965; for surveys Korn and Graubard 1998). ``V`` is the sum of
squares of what each patient moves the figure by. Where few errors are seen they tell little of ``V``, so errors not seen
are added: ``n = (p (1 - p) + w / m) / (V + w / (m u))``, where the figure rests on ``m`` images of ``u`` patients, and
``w = q^2 / (k + 1)`` fades with the effective number ``k`` of patients that move it (Kish's, of the squared moves). A
figure without an error has ``n = u``, and so an AUC of exactly 1 has a lower end. To a mean over classes each class adds
its own unseen errors, for one without errors may have few images. The log loss is a share of the largest loss that one of
the images could have cost (:func:`worst_loss`). The interval is Clopper and Pearson's with a quarter of their caution taken
away: their own is wide, and the mid-P interval, which takes half, falls to 92 %. What is made of several shares, such as the
balanced accuracy, gets its interval from theirs (:mod:`stillroom.evaluation.decisions`).

**A difference** of two models gets ``+- q sqrt(V + s + w / u^2)``: ``s`` is the square of the largest move once more, and
the last term stands for images on which the models differ but of which none was drawn, with the same ``w``. Where they
never differ the half-width is that of an event not seen in ``u``.

``q`` is Student's quantile. proofs/intervals.py simulates both where the truth is known (docs/evidence.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from stillroom.evaluation.figures import CLASS_FIGURES, NEED_NEGATIVES, Averaged, Tally
from stillroom.evaluation.intervals import LEVEL
from stillroom.task import Task

CAUTION = 0.75
"""Weight of Clopper and Pearson's tail in the tails' mean with the next count's: 1 is theirs, 0.5 is mid-P."""
FEWEST = 2.0
"""A figure that rests on fewer images or patients than this has no interval: one says nothing of how others differ."""


def span(task: Task, name: str, worst: float = 1.0) -> tuple[float, float]:
    """Smallest and largest value of a figure; of the log loss the largest is ``worst``, see :func:`worst_loss`."""
    if name == "nll":
        return 0.0, worst
    if name == "brier" and task.kind in ("multiclass", "ordinal"):
        return 0.0, 2.0
    return (-1.0, 1.0) if name in ("mcc", "quadratic_kappa") else (0.0, 1.0)


def worst_loss(task: Task, probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The largest log loss that any of these images could have cost, whatever it shows: of ``[N, K]``.

    Losses are rare and large where confident answers are wrong, and a sample may hold none. How large they would be, the
    answers themselves say.
    """
    least = probabilities.argmin(axis=1) if task.exclusive else (probabilities < 0.5).astype(np.uint8)
    return float(max(task.log_loss(probabilities, made).max() for made in (least, targets)))


@dataclass(frozen=True)
class Basis:
    """On how many images (or patients) each figure rests: the size of the share that it is when almost all is right.

    A mean over classes rests on as many as its worst class allows, if all errors fell there, times the number of classes;
    never on more than there are.

    Attributes:
        overall: name to number.
        per_class: name to ``[K]``.
    """

    overall: dict[str, float]
    per_class: dict[str, np.ndarray]

    @classmethod
    def of(cls, tally: Tally, members: np.ndarray | None = None) -> Basis:
        """Count images, or patients by ``[N]`` whole numbers from 0."""
        task, over = tally.task, Averaged.of(tally.task, tally.truth)
        positive, negative, predicted = (
            _counted(mask, members) for mask in (tally.truth, 1 - tally.truth, tally.predicted)
        )
        total = float(len(tally.truth) if members is None else members.max() + 1)
        sides = 2 * positive * negative / np.maximum(positive + negative, 1)
        called = _counted(np.maximum(tally.truth, tally.predicted), members)
        per_class = {
            "auc": sides,  # Hanley and McNeil's variance near 1
            "sensitivity": positive,
            "specificity": negative,
            "precision": predicted,
            "f1": called,
            "average_precision": positive,
        }

        def mean(numbers: np.ndarray, classes: np.ndarray) -> float:
            return min(total, float(len(classes) * numbers[classes].min(initial=total)))

        overall = {
            name: mean(per_class[name], over.contrasted if name in NEED_NEGATIVES else over.scored)
            for name in CLASS_FIGURES
        }
        overall |= dict.fromkeys(("accuracy", "brier", "nll"), total)
        shares = tally.truth.mean(axis=0)
        if task.exclusive:
            overall["balanced_accuracy"] = mean(positive, over.present)
            overall["mcc"] = 2 * total * float(1 - (shares**2).sum())
        else:
            overall["balanced_accuracy"] = mean(2 * np.minimum(positive, negative), over.contrasted)
            overall["mcc"] = mean(2 * sides, over.contrasted)
        grades = np.arange(len(shares))
        spread = float((grades**2 * shares).sum() - (grades * shares).sum() ** 2)
        overall["quadratic_kappa"] = 4 * total * spread / max(1, len(shares) - 1) ** 2
        return cls(overall, per_class)


def _counted(mask: np.ndarray, members: np.ndarray | None) -> np.ndarray:
    """How many images, or patients with such an image, each column of ``[N, K]`` of 0/1 marks: ``[K]``."""
    if members is None:
        return mask.sum(axis=0)
    return np.array([len(np.unique(members[column > 0])) for column in mask.T], dtype=np.float64)


@dataclass(frozen=True)
class Moved:
    """One figure and how it moves.

    Attributes:
        value: of the figure, NaN where it is not defined.
        moves: ``[U]`` how far each image or patient moves it.
        images: number of images that it rests on, see :class:`Basis`.
        units: the same of what is independent: of patients where they are known.
    """

    value: float
    moves: np.ndarray
    images: float
    units: float


def variance(moves: np.ndarray, by_image: np.ndarray) -> float:
    """Of a figure, from ``[U]`` moves of patients and ``[N]`` of images: what patients share never makes it smaller."""
    return float(max((moves**2).sum(), (by_image**2).sum()))


def seen(moves: np.ndarray) -> float:
    """The effective number of images or patients that move a figure, by Kish: ``(sum s)^2 / sum s^2`` of squares ``s``."""
    squares = moves**2
    # A figure that nothing moves has nothing but rounding here.
    return float(squares.sum() ** 2 / (squares**2).sum()) if squares.sum() > 1e-20 * len(moves) else 0.0


def unseen(
    moved_by: np.ndarray, images: np.ndarray, units: np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of which none was drawn: the share of them that is added to each of ``[F]`` figures, and its variance.

    Arguments as of :func:`shares`.
    """
    from scipy.special import stdtrit

    q = stdtrit(np.maximum(images - 1, 1e-9), (1 + level) / 2)
    error = q**2 / (moved_by + 1) / np.maximum(images, 1)
    return error, error / np.maximum(units, 1)


def unseen_in_mean(errors: np.ndarray, variances: np.ndarray, total: float) -> tuple[float, float]:
    """:func:`unseen` of a mean over ``[C]`` classes with these of their own; ``total`` images or patients are no more.

    Classes may err on the same images: without an error the mean rests on ``total`` at most.
    """
    if not len(errors):
        return 0.0, 0.0
    error = float(errors.mean())
    return error, max(float(variances.sum()) / len(errors) ** 2, error / total)


def shares(
    values: np.ndarray,
    variances: np.ndarray,
    moved_by: np.ndarray,
    images: np.ndarray,
    units: np.ndarray,
    level: float = LEVEL,
    added: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of ``[F]`` figures between 0 and 1; NaN where one is not defined or rests on fewer than two units.

    A figure that no image moves and that is neither 0 nor 1, such as the AUC of a constant answer, is its own interval; one
    that is so because an answer is never given gets that of its shares (:mod:`stillroom.evaluation.decisions`).

    Args:
        values: of the figures.
        variances: of each.
        moved_by: how many units move it, see :func:`seen`.
        images, units: what it rests on, see :class:`Basis`.
        added: errors not seen and their variance, where they are not those of :func:`unseen`.
    """
    from scipy.special import stdtrit

    with np.errstate(invalid="ignore", divide="ignore"):
        many, few = (stdtrit(np.maximum(number - 1, 1e-9), (1 + level) / 2) for number in (images, units))
        error, its_variance = added or unseen(moved_by, images, units, level)
        count = (values * (1 - values) + error) / (variances + its_variance) * (many / few) ** 2
        low, high = binomial(values, count, level)
    fixed = (moved_by == 0) & (values > 0) & (values < 1)
    known = np.isfinite(values) & (units >= FEWEST)
    low, high = np.where(fixed, values, low), np.where(fixed, values, high)
    return np.where(known, np.minimum(low, values), np.nan), np.where(known, np.maximum(high, values), np.nan)


def binomial(share: np.ndarray, count: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Interval of ``[F]`` shares of ``[F]`` trials, both real numbers: Clopper and Pearson's, less a quarter (CAUTION)."""
    hits = share * count
    return _lower(hits, count, (1 - level) / 2), 1 - _lower(count - hits, count, (1 - level) / 2)


def _lower(hits: np.ndarray, count: np.ndarray, tail: float) -> np.ndarray:
    """The share at which so many hits or more come with the probability ``tail``, by bisection between
    those for so many hits and for one more: ``[F]``."""
    from scipy.special import betainc, betaincinv

    misses = np.maximum(count - hits, 0)
    low = betaincinv(np.maximum(hits, 1e-12), misses + 1, tail)
    high = np.where(misses > 0, betaincinv(hits + 1, misses, tail), 1.0)
    for _ in range(24):
        middle = (low + high) / 2
        so_many = betainc(hits, misses + 1, middle)
        more = np.where(misses > 0, betainc(hits + 1, misses, middle), 0)
        rare = CAUTION * so_many + (1 - CAUTION) * more < tail
        low, high = np.where(rare, middle, low), np.where(rare, high, middle)
    return np.where(hits <= 1e-12 * count, 0.0, low)


def difference(first: Moved, second: Moved, width: float = 1.0) -> tuple[float | None, float | None, float | None]:
    """95 % interval and two-sided p-value (of no difference) of ``first - second`` on the same images.

    The p-value is below 5 % exactly where the interval leaves zero out.

    Args:
        width: distance between the figure's smallest and largest value.

    Returns:
        ``(low, high, p)``; three None where a figure is not defined or rests on fewer than two units.
    """
    from scipy.special import stdtr, stdtrit

    found = first.value - second.value
    units = len(first.moves)
    if not np.isfinite(found) or min(first.units, units) < FEWEST:
        return None, None, None
    moves = first.moves - second.moves
    squares = moves**2
    q = float(stdtrit(units - 1, (1 + LEVEL) / 2))
    known = float(squares.sum() + squares.max())
    unseen = (width / first.units) ** 2 / (seen(moves) + 1)
    half = q * sqrt(known + q**2 * unseen)
    # Of half = x sqrt(known + x^2 unseen) the x at which it reaches from the difference to zero.
    x = sqrt((sqrt(known**2 + 4 * unseen * found**2) - known) / (2 * unseen))
    return found - half, found + half, float(2 * stdtr(units - 1, -x))

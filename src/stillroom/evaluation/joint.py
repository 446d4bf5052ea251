"""Intervals over several trainings on the same test images: for the luck of training and that of the images together.

The mean's variance is the sum of two parts: ``s^2 / S``, with ``s`` the standard deviation over ``S`` trainings, and what the
images (or patients) move the mean by, as of one training (:mod:`~stillroom.evaluation.effective`). Student's quantile has
Welch and Satterthwaite's degrees of freedom: ``S - 1`` where trainings dominate, the number of images less one where images
do. What trainings and images do together is counted in both parts, so the interval is rather too wide than too narrow. With
one training its luck is unknown and the interval holds the images' part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from stillroom.evaluation.effective import FEWEST, Moved, seen, shares
from stillroom.evaluation.intervals import LEVEL

Ends = tuple[float | None, float | None]


def joint_figure(found: Sequence[Moved], ends: tuple[float, float]) -> Ends:
    """95 % interval of the mean of one figure over trainings; None where it is not defined in one of them.

    Args:
        found: the figure in each training.
        ends: smallest and largest value that it can take.
    """
    (start, end), values = ends, np.array([one.value for one in found])
    if not np.isfinite(values).all():
        return None, None
    moves = np.mean([one.moves for one in found], axis=0)
    of_images, of_trainings = float((moves**2).sum()), _of_trainings(values)
    # The quantile of few trainings makes what both parts add up to as much wider.
    wider = (_quantile(of_images, of_trainings, len(moves), len(values)) / _student(len(moves) - 1)) ** 2
    figures = (
        (values.mean() - start) / (end - start),
        (of_images + of_trainings) * wider / (end - start) ** 2,
        seen(moves) if of_trainings == 0 else max(seen(moves), 1e-9),
        min(one.images for one in found),
        min(one.units for one in found),
    )
    shown = [np.array([float(each)]) for each in figures]
    low, high = shares(shown[0], shown[1], shown[2], shown[3], shown[4])
    if np.isnan(low[0]):
        return None, None
    return start + (end - start) * float(low[0]), start + (end - start) * float(high[0])


def joint_difference(first: Sequence[Moved], second: Sequence[Moved], width: float) -> Ends:
    """95 % interval of the mean of ``first - second`` over trainings, paired by training and image; None as above.

    Args:
        width: distance between the figure's smallest and largest value.
    """
    values = np.array([one.value - other.value for one, other in zip(first, second, strict=True)])
    moves = np.mean([one.moves - other.moves for one, other in zip(first, second, strict=True)], axis=0)
    units = min(one.units for one in first)
    if not np.isfinite(values).all() or min(units, len(moves)) < FEWEST:
        return None, None
    squares = moves**2
    of_images, of_trainings = float(squares.sum() + squares.max()), _of_trainings(values)
    q = _quantile(of_images, of_trainings, len(moves), len(values))
    unseen = (width / units) ** 2 / (seen(moves) + 1)
    half = q * sqrt(of_images + of_trainings + _student(len(moves) - 1) ** 2 * unseen)
    return float(values.mean()) - half, float(values.mean()) + half


def _of_trainings(values: np.ndarray) -> float:
    found = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    return found if found > 1e-18 else 0.0  # rounding alone


def _quantile(of_images: float, of_trainings: float, units: int, trainings: int) -> float:
    total = of_images + of_trainings
    if total == 0:
        return _student(units - 1)
    parts = of_images**2 / max(units - 1, 1) + (of_trainings**2 / (trainings - 1) if trainings > 1 else 0.0)
    return _student(total**2 / parts)


def _student(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1.0), (1 + LEVEL) / 2))

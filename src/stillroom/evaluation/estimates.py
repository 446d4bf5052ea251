"""Figures with intervals: ratios of sums over images, and what is measured many times over, from its resamples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stillroom.errors import UsageError
from stillroom.evaluation.effective import seen, shares, variance
from stillroom.evaluation.intervals import percentile

Estimate = dict[str, float | None]
"""``value``, ``low`` and ``high``, None where not defined."""


def estimate(samples: np.ndarray) -> Estimate:
    """From ``[1 + R]``: the figure itself, then its resamples."""
    value = number_of(samples[0])
    low, high = (None, None) if value is None else percentile(samples[1:])
    return {"value": value, "low": low, "high": high}


def share(samples: np.ndarray, units: tuple[int, int]) -> Estimate:
    """As :func:`estimate`, of a share: that of an effective number of images, with the variance of the resamples.

    Args:
        units: number of images, and of images or patients that were resampled.
    """
    value = float(min(samples[0], 1.0))
    if len(samples) < 3:
        return {"value": value, "low": None, "high": None}
    both = value * (1 - value)
    rest = [np.array([float(number)]) for number in units]
    low, high = shares(
        np.array([value]), np.array([samples[1:].var()]), rest[1] * both / (1 - 3 * both), rest[0], rest[1]
    )
    return {"value": value, "low": number_of(low[0]), "high": number_of(high[0])}


def ratio(
    above: np.ndarray, below: np.ndarray, members: np.ndarray | None, ends: tuple[float, float] = (0.0, 1.0)
) -> Estimate:
    """A ratio of two sums over images, as a share of an effective number of images (or patients).

    Args:
        above: ``[N]`` what each image adds above the line.
        below: ``[N]`` and below it, 0 or more; an image that adds nothing takes no part.
        members: ``[N]`` whole numbers from 0, equal for images of one patient; None where every image stands alone.
        ends: smallest and largest value that the ratio can take.

    Returns:
        None for a ratio that is not defined, and for the interval of what rests on one image or patient alone.
    """
    start, end = ends
    if len(below) == 0:
        raise UsageError("There is no image to evaluate: the split is empty.")
    total = float(below.sum())
    if total == 0:
        return {"value": None, "low": None, "high": None}
    counted = below > 0
    value = float(above.sum()) / total
    by_image = (above - value * below) / total / (end - start)
    moves = by_image if members is None else np.bincount(members, weights=by_image)
    images = float(counted.sum())
    units = images if members is None else float(len(np.unique(members[counted])))
    low, high = share_ends((value - start) / (end - start), moves, by_image, images, units)
    return {
        "value": value,
        "low": number_of(start + (end - start) * low),
        "high": number_of(start + (end - start) * high),
    }


def share_ends(
    value: float, moves: np.ndarray, by_image: np.ndarray, images: float, units: float
) -> tuple[float, float]:
    """Interval of one share that rests on so many images and units; see :func:`~stillroom.evaluation.effective.shares`.

    Args:
        moves: ``[U]`` how far each unit moves it.
        by_image: ``[N]`` how far each image does.
    """
    # Where nothing moves it, the next image still may.
    moved_by = max(seen(moves), 1e-9)
    each = [np.array([number]) for number in (value, variance(moves, by_image), moved_by, images, units)]
    low, high = shares(each[0], each[1], each[2], each[3], each[4])
    return float(low[0]), float(high[0])


def complement(share: Mapping[str, float | None]) -> Estimate:
    """One minus a share with its interval."""
    value, low, high = (None if end is None else 1 - end for end in (share["value"], share["high"], share["low"]))
    return {"value": value, "low": low, "high": high}


def number_of(value: float) -> float | None:
    """A figure for JSON: None where it is not defined."""
    return None if np.isnan(value) else float(value)

"""Figures with intervals from a figure itself and its resamples, for what is measured many times over."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stillroom.evaluation.effective import shares
from stillroom.evaluation.intervals import percentile, pivot

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


def gap(samples: np.ndarray) -> Estimate:
    """As :func:`estimate`, of a calibration error, which resampling biases upward."""
    low, high = pivot(float(samples[0]), samples[1:])
    return {"value": float(samples[0]), "low": low, "high": high}


def complement(share: Mapping[str, float | None]) -> Estimate:
    """One minus a share with its interval."""
    value, low, high = (None if end is None else 1 - end for end in (share["value"], share["high"], share["low"]))
    return {"value": value, "low": low, "high": high}


def number_of(value: float) -> float | None:
    """A figure for JSON: None where it is not defined."""
    return None if np.isnan(value) else float(value)

"""A mean over images with its interval."""

from __future__ import annotations

from math import sqrt

import numpy as np

from stillroom.evaluation.estimates import Estimate, ratio
from stillroom.evaluation.intervals import group_indices

SHARE, CORRELATION = (0.0, 1.0), (-1.0, 1.0)
"""Between which ends a figure of one image lies."""


def mean_with_interval(
    values: np.ndarray, patients: np.ndarray | None, ends: tuple[float, float] | None = None
) -> Estimate:
    """The mean over images and its 95 % interval, over images or whole patients.

    Args:
        values: ``[n]``; NaN where an image has none and is left out.
        patients: ``[n]`` str, ``""`` where unknown, or None.
        ends: smallest and largest value, where the values have them. Of values that are all at an end, hit or miss, the
            interval is that of a share (:func:`~stillroom.evaluation.estimates.ratio`); otherwise Student's t on the scale
            of the log odds, with the largest move counted twice: such values are skewed. Without ends it is Student's t.

    Returns:
        None for what is not defined: everything without values, the interval with those of one image or patient only.
    """
    from scipy.special import expit, logit, stdtrit

    defined = ~np.isnan(values)
    found = mean_with_t_interval(values, patients)
    if ends is None or found["low"] is None or found["value"] is None:
        return found
    (start, end), kept = ends, values[defined]
    members = None if patients is None else group_indices(patients[defined])
    if np.isin(kept, ends).all():
        return ratio(kept, np.ones(len(kept)), members, ends)
    share = min(max((found["value"] - start) / (end - start), 1e-9), 1 - 1e-9)
    moves = (kept - found["value"]) / (end - start) / len(kept)
    moves = moves if members is None else np.bincount(members, weights=moves)
    spread = sqrt(float((moves**2).sum() + (moves**2).max())) / (share * (1 - share))
    half = float(stdtrit(len(moves) - 1, 0.975)) * spread
    low, high = (start + (end - start) * float(expit(logit(share) + by)) for by in (-half, half))
    return {"value": found["value"], "low": min(low, found["value"]), "high": max(high, found["value"])}


def mean_with_t_interval(values: np.ndarray, patients: np.ndarray | None) -> Estimate:
    """The mean over images and its 95 % t-interval, over images or whole patients.

    Args:
        values: ``[n]``; NaN where an image has none and is left out.
        patients: ``[n]`` str, ``""`` where unknown, or None.
    """
    from scipy.stats import t

    defined = ~np.isnan(values)
    units = count_units(patients, defined)
    if units < 2:
        value = float(values[defined].mean()) if units else None
        return {"value": value, "low": None, "high": None}
    kept = values[defined]
    members = np.arange(len(kept)) if patients is None else group_indices(patients[defined])
    value = float(kept.mean())
    sums = np.bincount(members, weights=kept - value, minlength=units)
    half = float(t.ppf(0.975, units - 1) * np.sqrt(units / (units - 1) * (sums**2).sum()) / len(kept))
    return {"value": value, "low": value - half, "high": value + half}


def count_units(patients: np.ndarray | None, chosen: np.ndarray) -> int:
    """How many images, or patients where they are known, ``[n]`` bool ``chosen`` holds."""
    return int(chosen.sum()) if patients is None else len(np.unique(group_indices(patients)[chosen]))

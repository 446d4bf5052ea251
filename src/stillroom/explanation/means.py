"""A mean over images with its interval."""

from __future__ import annotations

import numpy as np

from stillroom.evaluation.intervals import divide, group_indices, percentile, resample_weights, wilson


def mean_with_interval(
    values: np.ndarray, patients: np.ndarray | None, resamples: int, seed: int, *, share: bool = False
) -> dict[str, float | None]:
    """``{"value", "low", "high"}``: the mean and its 95 % bootstrap interval, over images or whole patients.

    Args:
        values: ``[n]``; NaN where an image has none and is left out. The same resamples serve whatever is left out, so that
            the interval of a difference is a paired one.
        patients: ``[n]`` str, ``""`` where unknown, or None.
        resamples: 0 gives no interval.
        seed: of the resamples.
        share: the values are shares in [0, 1]. Where every resample agrees, the interval is then Wilson's.

    Returns:
        None for what is not defined: everything without values, the interval with those of one image or patient only.
    """
    defined = ~np.isnan(values)
    if not defined.any():
        return {"value": None, "low": None, "high": None}
    value, units = float(values[defined].mean()), count_units(patients, defined)
    low, high = None, None
    if units > 1:
        weights = resample_weights(len(values), resamples, seed, patients)
        low, high = percentile(divide(weights @ np.where(defined, values, 0.0), weights @ defined.astype(np.float64)))
    if share and low is not None and low == high:
        low, high = wilson(value * units, units)
    return {"value": value, "low": low, "high": high}


def mean_with_t_interval(values: np.ndarray, patients: np.ndarray | None) -> dict[str, float | None]:
    """Like :func:`mean_with_interval`, with a 95 % t-interval over images or whole patients: of few the bootstrap's is too
    narrow.

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

"""Calibration: does a stated 80 % come true in 80 % of cases? Temperature scaling (fitted on validation
only), expected calibration error and the reliability diagram's bins."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from stillroom.evaluation.intervals import wilson
from stillroom.task import Task

TEMPERATURES = (0.05, 20.0)
FEWEST_IMAGES = 10
NEEDED = "recalibration needed"
"""The verdict of :mod:`~stillroom.evaluation.calibration_error` that asks for something to be done."""


def fit_temperature(task: Task, logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature in [0.05, 20] that minimises the negative log-likelihood of validation logits.

    Returns 1.0, which changes nothing, where the images cannot determine a temperature: fewer than 10 of
    them, no class both present and absent among them, or labels so well separated that ever sharper
    probabilities fit ever better. So it does for logits that are the same for every image (the majority class): they
    state shares, and there is nothing in them to sharpen.

    Args:
        logits: ``[N, K]`` logits of the validation images, never of the test.
        targets: their targets, in the task's form.
    """
    from scipy.optimize import minimize_scalar

    truth = task.one_hot(targets)
    if len(truth) < FEWEST_IMAGES or not (truth != truth[0]).any() or not (logits != logits[0]).any():
        return 1.0
    # The likelihood has a single valley along the temperature; its logarithm spreads the range evenly.
    found = minimize_scalar(
        lambda log_temperature: task.nll(logits, targets, float(np.exp(log_temperature))),
        bounds=tuple(np.log(TEMPERATURES)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    if task.nll(logits, targets, TEMPERATURES[0]) <= found.fun:
        return 1.0
    return float(np.exp(found.x))


def calibration_notes(calibration: Mapping[str, Any]) -> list[str]:
    """What to mind about a fitted temperature: its bound, and a calibration that it made worse by more than chance does.

    Args:
        calibration: ``temperature``, and what :func:`~stillroom.evaluation.calibration_error.calibration_error` found
            ``before`` and ``after`` it (not in a run of an earlier Stillroom).
    """
    notes = []
    if uninformative(calibration.get("temperature")):
        notes.append(
            f"The fitted temperature is at its bound of {TEMPERATURES[1]:.0f}: on validation the outputs carry "
            "no usable information."
        )
    before, after = calibration.get("before") or {}, calibration.get("after") or {}
    if after.get("verdict") == NEEDED and before.get("verdict") != NEEDED:
        worse = [found["error"]["value"] for found in (before, after)]
        notes.append(
            f"The temperature made calibration on the test images worse: calibration error {worse[0]:.3f} before, "
            f"{worse[1]:.3f} after."
        )
    return notes


def uninformative(temperature: float | None) -> bool:
    """Whether a temperature is at the upper bound: the flatter the probabilities, the better they fit."""
    # The search ends just short of its bound.
    return temperature is not None and temperature > 0.99 * TEMPERATURES[1]


def expected_calibration_error(task: Task, probabilities: np.ndarray, targets: np.ndarray, bins: int = 15) -> float:
    """Mean distance between stated confidence and share that came true, over equal-width bins, in [0, 1].

    Exclusive classes: confidence in the class decided for (top label). Multi-label: every label's
    probability.
    """
    gaps, pairs = calibration_gaps(task, probabilities, targets, bins)
    return float(np.abs(gaps.sum(axis=0)).sum() / (pairs * len(gaps)))


def calibration_gaps(
    task: Task, probabilities: np.ndarray, targets: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, int]:
    """What each image adds to each bin's gap, so that the error of any resample is a weighted sum.

    Returns:
        ``[N, bins]`` of confidence minus outcome, summed over the image's pairs in the bin, and the pairs per
        image.
    """
    confidence, outcome = task.confidence(probabilities, targets)
    images, pairs = len(probabilities), len(confidence) // len(probabilities)
    cell = np.repeat(np.arange(images), pairs) * bins + equal_width(confidence, bins)
    gaps = np.bincount(cell, weights=confidence - outcome, minlength=images * bins)
    return gaps.reshape(images, bins), pairs


def reliability(
    task: Task, probabilities: np.ndarray, targets: np.ndarray, bins: int = 15, *, design: float = 1.0
) -> list[dict[str, Any]]:
    """The non-empty equal-width bins of a reliability diagram, in ascending order.

    Each has ``low`` and ``high`` (the bin's edges), ``confidence`` and ``accuracy`` (means in it), ``count``
    (pairs of confidence and outcome), ``accuracy_low``, ``accuracy_high`` (Wilson, 95 %) and ``band_low``, ``band_high``:
    where the share of a calibrated classifier would lie in 95 % (consistency band; Broecker and Smith 2007, "Increasing the
    reliability of reliability diagrams").

    Args:
        design: by how much the variance of chance is inflated by patients with several images, 1 or more.
    """
    from scipy.stats import binom

    confidence, outcome = task.confidence(probabilities, targets)
    place = equal_width(confidence, bins)
    rows = []
    for index in np.unique(place):
        inside = place == index
        count, right = int(inside.sum()), float(outcome[inside].sum())
        low, high = wilson(right / design, count / design)
        stated = float(confidence[inside].mean())
        band = stated + (binom.ppf([0.025, 0.975], count, stated) / count - stated) * sqrt(design)
        rows.append(
            {
                "low": float(index / bins),
                "high": float((index + 1) / bins),
                "confidence": stated,
                "accuracy": right / count,
                "count": count,
                "accuracy_low": low,
                "accuracy_high": high,
                "band_low": max(0.0, float(band[0])),
                "band_high": min(1.0, float(band[1])),
            }
        )
    return rows


def equal_width(confidence: np.ndarray, bins: int = 15) -> np.ndarray:
    """Equal-width bin of each confidence, lower edge included; 1.0 belongs to the last."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)

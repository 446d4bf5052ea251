"""Which weights a training hands over: those of its end, unless validation says clearly that earlier ones were better.

The first maximum of a validation figure is luck where validation is small: with 30 images the AUC is 1.000 after one epoch
and nineteen more are thrown away. What is compared here is the calibrated likelihood, image by image, and a difference
counts only beyond three standard errors (docs/benchmarks.md, "Which start, rates, views, teaching and end?").
"""

from __future__ import annotations

import numpy as np

from stillroom.evaluation.calibration import fit_temperature
from stillroom.task import Task

FEWEST_IMAGES = 20
"""Fewer validation images choose nothing."""
STANDARD_ERRORS = 3.0
"""The lowest of some thirty looks lies two below the last by luck alone (docs/benchmarks.md)."""


def calibrated_losses(task: Task, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each image at the temperature that fits these logits best, ``[n]`` in nats.

    At its own temperature, because a network that goes on learning grows surer, which raises its plain loss while its
    ranking still gets better; the temperature is fitted anew afterwards anyway.
    """
    temperature = fit_temperature(task, logits, targets)
    return task.log_loss(task.probabilities(logits, temperature), targets)


def clearly_better(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None) -> bool:
    """Whether the first network's losses ``[n]`` are lower than the second's on the same images, beyond their luck.

    By more than three standard errors of the paired difference; never with fewer than 20 images.

    Args:
        groups: ``[n]`` whole numbers from 0, equal for images of one patient; None where every image stands alone.
    """
    if len(first) < FEWEST_IMAGES:
        return False
    gain = second - first
    return bool(gain.mean() > STANDARD_ERRORS * standard_error(gain, groups))


def standard_error(values: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Of the mean of ``[n]`` values; images of one patient (``groups``, as above) count as one observation."""
    groups = np.arange(len(values)) if groups is None else groups
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    spread = ((sums - values.mean() * counts) ** 2).sum() * len(sums) / max(1, len(sums) - 1)
    return float(np.sqrt(spread) / len(values))

"""Figures of images that are judged many times over, as where they are corrupted: weights are drawn once for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.evaluation.calibration import calibration_gaps
from stillroom.evaluation.intervals import blocks, divide, group_indices, resample_weights
from stillroom.task import Task


@dataclass(frozen=True)
class Judge:
    """Figures of many sets of probabilities of the same ``n`` images, under the same ``1 + R`` weightings.

    The first weighting counts every image once and gives the figures themselves; the others are resamples.

    Attributes:
        truth: ``[n, K]`` of 0/1.
        sides: ``[n, M]`` which images each share of the balanced accuracy is of. Exclusive classes: those of a class.
            Multi-label: those with a label, and those without it.
        labels: ``[M]`` the class or label of each share.
        weights: ``[1 + R, n]``.
        totals: ``[1 + R, M]`` images drawn on each side.
        units: images, or patients where whole ones are resampled.
    """

    task: Task
    targets: np.ndarray
    truth: np.ndarray
    sides: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    totals: np.ndarray
    units: int

    @classmethod
    def of(cls, task: Task, targets: np.ndarray, patients: np.ndarray | None, resamples: int, seed: int) -> Judge:
        groups = patients if patients is not None and (np.asarray(patients) != "").any() else None
        weights = resample_weights(len(targets), resamples, seed, groups)
        truth = task.one_hot(targets)
        support = truth.sum(axis=0, dtype=np.int64)
        if task.exclusive:
            labels = np.flatnonzero(support > 0)
            sides = truth[:, labels]
        else:
            both = np.flatnonzero((support > 0) & (support < len(truth)))
            labels = np.concatenate([both, both])
            sides = np.concatenate([truth[:, both], 1 - truth[:, both]], axis=1)
        weights = np.concatenate([np.ones((1, len(truth)), dtype=weights.dtype), weights])
        return cls(
            task=task,
            targets=targets,
            truth=truth,
            sides=sides,
            labels=labels,
            weights=weights,
            totals=_weighted(weights, sides),
            units=len(truth) if groups is None else len(np.unique(group_indices(groups))),
        )

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """``[n, K]`` probabilities to ``[3, 1 + R]``: accuracy, balanced error and calibration error."""
        right = self.task.one_hot(self.task.decide(probabilities)) == self.truth
        correct = self.task.correct(probabilities, self.targets)[:, None]
        gaps, pairs = calibration_gaps(self.task, probabilities, self.targets)
        hits = self.sides * right[:, self.labels]
        sums = _weighted(self.weights, np.concatenate([correct, gaps / pairs, hits], axis=1))
        bins = gaps.shape[1]
        drawn = self.weights.sum(axis=1)
        shares = divide(sums[:, 1 + bins :], self.totals)
        balanced = shares.mean(axis=1) if shares.shape[1] else np.full(len(shares), np.nan)
        return np.stack([sums[:, 0] / drawn, 1 - balanced, np.abs(sums[:, 1 : 1 + bins]).sum(axis=1) / drawn])


def _weighted(weights: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``[W, n]`` weights of ``[n, M]`` columns: sums ``[W, M]``."""
    return np.concatenate([block @ columns for block in blocks(weights)])

"""Where the features of training images lie, and how far from them an image is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.errors import RunError, UsageError
from stillroom.task import Task

MOST_DIRECTIONS = 64
# Share of the mean variance that every direction gets: features that never varied stay finitely precise.
SHRINKAGE = 0.01
# Smallest variance, as a share of the mean squared feature: float32 rounding, which differs between runtimes, must not
# show in the distances of features that hardly vary.
ROUNDING = 1e-6


@dataclass(frozen=True)
class FeatureDensity:
    """What the features of training images look like: class centres with one covariance for all.

    The covariance is kept in the form of probabilistic PCA (Tipping and Bishop, 1999): ``r`` directions with
    variances of their own, and one variance for everything at right angles to them.

    Attributes:
        centres: ``[C, D]`` float32, a mean per class that has two training images; one of all for multi-label.
        directions: ``[D, r]`` float32, orthonormal columns, those of most variance.
        precisions: ``[r]`` float64, one over the variance along each direction.
        residual_precision: one over the variance of every other direction.
    """

    centres: np.ndarray
    directions: np.ndarray
    precisions: np.ndarray
    residual_precision: float

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance to the nearest centre over ``sqrt(D)``, ``[N]`` float64; about 1 in distribution.

        Source: Lee et al., NeurIPS 2018, of the last features alone.

        Args:
            features: ``[N, D]``, of the layer that the density was fitted on.

        Raises:
            UsageError: features of another width.
            RunError: a feature that is not a number.
        """
        features = finite(features, "features")
        if features.ndim != 2 or features.shape[1] != self.centres.shape[1]:
            raise UsageError(
                f"The feature density is of {self.centres.shape[1]} features, got an array of shape "
                f"{list(features.shape)}: take both from the same layer of the same network."
            )
        nearest = np.full(len(features), np.inf)
        for centre in self.centres.astype(np.float64):
            away = features - centre
            along = away @ self.directions
            rest = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0)
            nearest = np.minimum(nearest, along**2 @ self.precisions + rest * self.residual_precision)
        return np.sqrt(nearest / features.shape[1])


def fit_density(task: Task, features: np.ndarray, targets: np.ndarray) -> FeatureDensity:
    """The density of training features: class means, and the covariance around them, pooled over classes.

    Every variance is drawn 1 % of the way to the mean variance, so that features that never vary in training do
    not make each small change of them infinitely foreign. At most 64 directions are kept.

    Args:
        task: what the targets mean.
        features: ``[n, D]`` of the training images, any float type.
        targets: their targets, in the task's form.

    Raises:
        UsageError: shapes that do not fit together, or no class with two images.
        RunError: a feature that is not a number.
    """
    features = finite(features, "features")
    if features.ndim != 2 or len(features) != len(targets):
        raise UsageError(f"Features of shape {list(features.shape)} do not fit {len(targets)} targets.")
    labels = targets if task.exclusive else np.zeros(len(targets), dtype=np.int64)
    known, counts = np.unique(labels, return_counts=True)
    width, used = features.shape[1], counts[counts > 1]
    if len(used) == 0:
        raise UsageError("A feature density needs a class with at least two training images: there is none.")

    centres, scatter, square = [], np.zeros((width, width)), 0.0
    for label in known[counts > 1]:
        members = features[labels == label].astype(np.float64)
        square += float((members**2).sum()) / int(used.sum()) / width
        centres.append(members.mean(axis=0))
        away = members - centres[-1]
        scatter += away.T @ away
    freedom = int(used.sum()) - len(used)
    ascending, axes = np.linalg.eigh(scatter / freedom)
    variances = (1 - SHRINKAGE) * ascending[::-1] + SHRINKAGE * ascending.mean()
    variances = np.maximum(variances, ROUNDING * max(square, 1.0))

    kept = max(0, min(MOST_DIRECTIONS, width - 1, freedom - 1))
    return FeatureDensity(
        centres=np.array(centres, dtype=np.float32),
        directions=np.ascontiguousarray(axes[:, ::-1][:, :kept], dtype=np.float32),
        precisions=1 / variances[:kept],
        residual_precision=float(1 / variances[kept:].mean()),
    )


def finite(values: np.ndarray, what: str) -> np.ndarray:
    """The values as they are, or an error that says which image has one that is not a number."""
    broken = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if broken.any():
        row = int(np.flatnonzero(broken)[0])
        raise RunError(f"The {what} of image {row} (counted from 0) are not finite: the model diverged.")
    return values

"""Several readers, the same images, without and with help: is a reader better with it? (MRMC: multi-reader multi-case.)

Obuchowski and Rockette's analysis of variance (Commun Stat Simul 1995;24:285) in the form of Hillis (Stat Med 2007;26:596),
whose degrees of freedom keep the error rate with few readers. Readers and images are both samples: what is found holds for
readers and images like these. With one reader, or where asked, readers are taken as they are, and it holds for them alone.

One thing is ours: the spread of readers is never taken for less than what these same readers would differ by in other images.
Two or three readers may agree by chance, and without that they err in 9 % where 5 % is meant (proofs/readers.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, sqrt
from typing import Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.evaluation.intervals import LEVEL, wilson

_NOTHING = 1e-15
"""A variance below it is rounding alone: nobody differed in anything."""


@dataclass(frozen=True)
class Figures:
    """One figure of every reader in both conditions, and how the figures vary together with the choice of images.

    Attributes:
        values: ``[2, J]`` of ``J`` readers: without help, with help.
        covariance: ``[2, J, 2, J]`` of these, over images.
        images: on how many images a figure rests, as a share would that is right in nearly all.
    """

    values: np.ndarray
    covariance: np.ndarray
    images: float

    def __post_init__(self) -> None:
        readers = self.values.shape[-1]
        if self.values.shape != (2, readers) or readers < 1 or self.covariance.shape != (2, readers, 2, readers):
            raise UsageError(
                f"Figures are [2, J] with covariances [2, J, 2, J], got {list(self.values.shape)} and "
                f"{list(self.covariance.shape)}."
            )


def auc(scores: np.ndarray, truth: np.ndarray) -> Figures:
    """The area under each reader's ROC curve, ties counted half, with the covariances of DeLong et al. (Biometrics 1988).

    Args:
        scores: ``[2, J, N]`` higher where a reader is surer that the finding is there.
        truth: ``[N]`` of 0 and 1, at least two of each.
    """
    from scipy.stats import rankdata

    positive = _both(truth)
    m, n = int(positive.sum()), int((~positive).sum())
    flat = scores.reshape(-1, scores.shape[-1])
    ranks = rankdata(flat, axis=1)
    # For each positive image the share of negative ones that score lower, and the reverse.
    above = (ranks[:, positive] - rankdata(flat[:, positive], axis=1)) / n
    beneath = 1 - (ranks[:, ~positive] - rankdata(flat[:, ~positive], axis=1)) / m
    covariance = np.cov(above) / m + np.cov(beneath) / n
    return _figures(above.mean(axis=1), covariance, scores.shape[1], 2 * m * n / (m + n))


def share(right: np.ndarray) -> Figures:
    """The share of images that each reader gets right, with the covariances of means.

    Args:
        right: ``[2, J, N]`` of 0 and 1, at least two images. Of the images that bear the finding alone it is the
            sensitivity, of the others the specificity.
    """
    flat = right.reshape(-1, right.shape[-1]).astype(np.float64)
    if flat.shape[1] < 2:
        raise UsageError(f"A share needs at least two images, got {flat.shape[1]}.")
    return _figures(flat.mean(axis=1), np.cov(flat) / flat.shape[1], right.shape[1], flat.shape[1])


def compare(figures: Figures) -> dict[str, Any]:
    """What help does to a figure, over all readers.

    Returns:
        ``without``, ``with`` and ``difference`` (with minus without), each ``value``, ``low``, ``high``; ``p`` that there is
        no difference; ``df`` (Hillis' degrees of freedom; None for a fixed reader); ``these_readers``, the ``difference`` and
        ``p`` with the readers taken as they are; ``random_readers``, False of one reader, where both are the same. Ends and p
        are None where no reader differed in any image, so that no spread can be estimated.
    """
    values, readers = figures.values, figures.values.shape[1]
    means = values.mean(axis=1)
    difference = float(means[1] - means[0])
    own, cov1, cov2, cov3 = _components(figures.covariance)
    fixed = 2 / readers * (own - cov1 + (readers - 1) * (cov2 - cov3))
    these = _judged(difference, fixed, inf)
    if readers == 1:
        alone = [_one_reader(float(means[i]), float(figures.covariance[i, 0, i, 0]), figures.images) for i in (0, 1)]
        found, df = these, None
    else:
        apart = values[1] - values[0]
        interaction = max(float(apart.var(ddof=1)) / 2, own - cov1 - cov2 + cov3)
        spread = interaction + readers * max(cov2 - cov3, 0.0)
        df = _degrees(spread, interaction, readers)
        found = _judged(difference, 2 / readers * spread, df)
        alone = [_one_condition(values[i], figures.covariance[i, :, i, :]) for i in (0, 1)]
    return {
        "without": alone[0],
        "with": alone[1],
        "difference": found[0],
        "p": found[1],
        "df": None if df is None or df == inf else df,
        "these_readers": {"difference": these[0], "p": these[1]},
        "random_readers": readers > 1,
    }


def each(figures: Figures) -> list[dict[str, Any]]:
    """The same for every reader alone, the reader taken as he or she is: as :func:`compare` of each."""
    return [
        compare(Figures(figures.values[:, [j]], figures.covariance[:, j, :, j][:, None, :, None], figures.images))
        for j in range(figures.values.shape[1])
    ]


def time_ratio(seconds: np.ndarray) -> dict[str, float | None]:
    """How many times as long a reading takes with help, ``value``, ``low``, ``high``: the ratio of geometric means.

    Args:
        seconds: ``[2, J, N]`` above 0. The interval is over readers, by Student's t of their mean logarithms; of one
            reader over the images.
    """
    from scipy.special import stdtrit

    logs = np.log(seconds[1]) - np.log(seconds[0])
    units = logs.mean(axis=1) if len(logs) > 1 else logs[0]
    middle, spread = float(units.mean()), float(units.std(ddof=1)) / sqrt(len(units))
    half = float(stdtrit(len(units) - 1, (1 + LEVEL) / 2)) * spread
    ends = (None, None) if spread**2 < _NOTHING else (float(np.exp(middle - half)), float(np.exp(middle + half)))
    return {"value": float(np.exp(middle)), "low": ends[0], "high": ends[1]}


def _both(truth: np.ndarray) -> np.ndarray:
    positive = truth > 0
    if min(positive.sum(), (~positive).sum()) < 2:
        raise UsageError("An AUC with an interval needs two images with the finding and two without it.")
    return positive


def _figures(values: np.ndarray, covariance: np.ndarray, readers: int, images: float) -> Figures:
    return Figures(values.reshape(2, readers), np.atleast_2d(covariance).reshape(2, readers, 2, readers), images)


def _components(covariance: np.ndarray) -> tuple[float, float, float, float]:
    """Variance, and covariances of: one reader in both conditions; two in one; two, one in each. 0 where there is no pair."""
    readers = covariance.shape[1]
    same, other = covariance[[0, 1], :, [0, 1], :], covariance[[0, 1], :, [1, 0], :]
    diagonal = np.eye(readers, dtype=bool)
    own, cov1 = float(same[:, diagonal].mean()), float(other[:, diagonal].mean())
    if readers == 1:
        return own, cov1, 0.0, 0.0
    return own, cov1, float(same[:, ~diagonal].mean()), float(other[:, ~diagonal].mean())


def _one_condition(values: np.ndarray, covariance: np.ndarray) -> dict[str, float | None]:
    """The mean over ``[J]`` readers, who are a sample, with ``[J, J]`` covariances over images."""
    readers, diagonal = len(values), np.eye(len(values), dtype=bool)
    common = float(covariance[~diagonal].mean())
    between = max(float(values.var(ddof=1)), float(covariance[diagonal].mean()) - common)
    spread = between + readers * max(common, 0.0)
    value, df = float(values.mean()), _degrees(spread, between, readers)
    found, slope = _judged(value, spread / readers, df)[0], value * (1 - value)
    if found["low"] is None or slope == 0:
        return {"value": value, "low": None, "high": None}
    half = (value - found["low"]) / slope  # on the scale of log odds, which does not end at 1
    odds = value / (1 - value)
    low, high = odds * exp(-half), odds * exp(half)
    return {"value": value, "low": low / (1 + low), "high": high / (1 + high)}


def _one_reader(value: float, variance: float, images: float) -> dict[str, float | None]:
    """Wilson's interval of a share that varies as much; one more image counts as wrong, for near 1 no spread is seen."""
    count = (value * (1 - value) + 1 / images) / (variance + 1 / images**2)
    low, high = wilson(min(max(value, 0.0), 1.0) * count, count, LEVEL)
    return {"value": value, "low": low, "high": high}


def _degrees(spread: float, between: float, readers: int) -> float:
    return (readers - 1) * (spread / between) ** 2 if between > _NOTHING else inf


def _judged(value: float, variance: float, df: float) -> tuple[dict[str, float | None], float | None]:
    """The value with its interval, and the two-sided p-value that it is 0."""
    from scipy.special import stdtr, stdtrit

    if variance < _NOTHING:
        return {"value": value, "low": None, "high": None}, None
    error = sqrt(variance)
    half = float(stdtrit(df, (1 + LEVEL) / 2)) * error
    return {"value": value, "low": value - half, "high": value + half}, float(2 * stdtr(df, -abs(value) / error))

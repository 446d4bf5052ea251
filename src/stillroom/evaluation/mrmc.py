"""Several readers, the same images, without and with help: is a reader better with it? (MRMC: multi-reader multi-case.)

Obuchowski and Rockette's analysis of variance (Commun Stat Simul 1995;24:285) in the form of Hillis (Stat Med 2007;26:596),
whose degrees of freedom keep the error rate with few readers. Readers and images are both samples: what is found holds for
readers and images like these. With one reader, or where asked, readers are taken as they are, and it holds for them alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.evaluation.intervals import LEVEL

_NOTHING = 1e-15
"""A variance below it is rounding alone: nobody differed in anything."""


@dataclass(frozen=True)
class Figures:
    """One figure of every reader in both conditions, and how the figures vary together with the choice of images.

    Attributes:
        values: ``[2, J]`` of ``J`` readers: without help, with help.
        covariance: ``[2, J, 2, J]`` of these, over images.
    """

    values: np.ndarray
    covariance: np.ndarray

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
    return _figures(above.mean(axis=1), covariance, scores.shape[1])


def share(right: np.ndarray) -> Figures:
    """The share of images that each reader gets right, with the covariances of means.

    Args:
        right: ``[2, J, N]`` of 0 and 1, at least two images. Of the images that bear the finding alone it is the
            sensitivity, of the others the specificity.
    """
    flat = right.reshape(-1, right.shape[-1]).astype(np.float64)
    if flat.shape[1] < 2:
        raise UsageError(f"A share needs at least two images, got {flat.shape[1]}.")
    return _figures(flat.mean(axis=1), np.cov(flat) / flat.shape[1], right.shape[1])


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
        alone = [_judged(float(means[i]), float(figures.covariance[i, 0, i, 0]), inf)[0] for i in (0, 1)]
        found, df = these, None
    else:
        interaction = float(((values - means[:, None] - values.mean(axis=0) + values.mean()) ** 2).sum()) / (
            readers - 1
        )
        spread = interaction + readers * max(cov2 - cov3, 0.0)
        df = _degrees(spread, interaction, readers)
        found = _judged(difference, 2 / readers * spread, df)
        alone = [_one_condition(values[i], figures.covariance[i, :, i, :]) for i in (0, 1)]
    return {
        "without": _bounded(alone[0]),
        "with": _bounded(alone[1]),
        "difference": found[0],
        "p": found[1],
        "df": None if df is None or df == inf else df,
        "these_readers": {"difference": these[0], "p": these[1]},
        "random_readers": readers > 1,
    }


def each(figures: Figures) -> list[dict[str, Any]]:
    """The same for every reader alone, the reader taken as he or she is: as :func:`compare` of each."""
    return [
        compare(Figures(figures.values[:, [j]], figures.covariance[:, j, :, j][:, None, :, None]))
        for j in range(figures.values.shape[1])
    ]


def time_ratio(seconds: np.ndarray) -> dict[str, float | None]:
    """How many times as long a reading takes with help, ``value``, ``low``, ``high``: the ratio of geometric means.

    Args:
        seconds: ``[2, J, N]`` above 0. The interval is over readers, by Student's t of their mean logarithms; of one
            reader over the images.
    """
    from scipy.stats import t

    logs = np.log(seconds[1]) - np.log(seconds[0])
    units = logs.mean(axis=1) if len(logs) > 1 else logs[0]
    middle, spread = float(units.mean()), float(units.std(ddof=1)) / sqrt(len(units))
    half = float(t.ppf((1 + LEVEL) / 2, len(units) - 1)) * spread
    ends = (None, None) if spread**2 < _NOTHING else (float(np.exp(middle - half)), float(np.exp(middle + half)))
    return {"value": float(np.exp(middle)), "low": ends[0], "high": ends[1]}


def _both(truth: np.ndarray) -> np.ndarray:
    positive = truth > 0
    if min(positive.sum(), (~positive).sum()) < 2:
        raise UsageError("An AUC with an interval needs two images with the finding and two without it.")
    return positive


def _figures(values: np.ndarray, covariance: np.ndarray, readers: int) -> Figures:
    return Figures(values.reshape(2, readers), np.atleast_2d(covariance).reshape(2, readers, 2, readers))


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
    readers = len(values)
    between = float(values.var(ddof=1))
    spread = between + readers * max(float(covariance[~np.eye(readers, dtype=bool)].mean()), 0.0)
    return _judged(float(values.mean()), spread / readers, _degrees(spread, between, readers))[0]


def _degrees(spread: float, between: float, readers: int) -> float:
    return (readers - 1) * (spread / between) ** 2 if between > _NOTHING else inf


def _judged(value: float, variance: float, df: float) -> tuple[dict[str, float | None], float | None]:
    """The value with its interval, and the two-sided p-value that it is 0."""
    from scipy.stats import t

    if variance < _NOTHING:
        return {"value": value, "low": None, "high": None}, None
    error = sqrt(variance)
    half = float(t.ppf((1 + LEVEL) / 2, df)) * error
    return {"value": value, "low": value - half, "high": value + half}, float(2 * t.sf(abs(value) / error, df))


def _bounded(figure: dict[str, float | None]) -> dict[str, float | None]:
    """A share of 1 has no interval above 1, nor one below 0."""
    return {name: None if end is None else min(max(end, 0.0), 1.0) for name, end in figure.items()}

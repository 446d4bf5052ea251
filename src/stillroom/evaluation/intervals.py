"""Intervals: a fast bootstrap over images or whole patients, and Wilson's interval of a single share.

A resample is a row of whole-number weights, how often each image was drawn. Every figure is computed from
weights, so one pass of array arithmetic serves all resamples and no image is ever copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np

from stillroom.errors import UsageError

LEVEL = 0.95
# Float64 cells held at once by one block of resamples: 32 MB.
BLOCK_CELLS = 4_000_000


def group_indices(groups: np.ndarray) -> np.ndarray:
    """``[N]`` str group (patient) ids to ``[N]`` int64 from 0; a row of unknown group ``""`` is its own."""
    names = np.asarray(groups).astype(str)
    known = names != ""
    indices = np.empty(len(names), dtype=np.int64)
    distinct, indices[known] = np.unique(names[known], return_inverse=True)
    indices[~known] = len(distinct) + np.arange((~known).sum())
    return indices


def resample_weights(n: int, resamples: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """How often each of ``n`` images is drawn in each bootstrap resample, ``[R, n]`` uint16.

    Args:
        n: number of images, at least 1.
        resamples: number of resamples ``R``, 0 or more.
        seed: the same seed gives the same resamples, so two models can be compared on them.
        groups: ``[n]`` str patient ids. Whole patients are drawn, with all their images; ``""`` is a patient
            alone.
    """
    if n < 1:
        raise UsageError("There is no image to evaluate: the split is empty.")
    if resamples < 0:
        raise UsageError(f"resamples must be 0 or more, got {resamples}.")
    members = np.arange(n) if groups is None else group_indices(groups)
    if len(members) != n:
        raise UsageError(f"Expected one patient per image: {n} images, {len(members)} patients.")
    drawn = int(members.max()) + 1
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, n), dtype=np.uint16)
    for row in weights:
        row[:] = np.bincount(generator.integers(drawn, size=drawn), minlength=drawn)[members]
    return weights


@dataclass(frozen=True)
class Resamples:
    """The resamples of one set of images, drawn once and shared by all that is measured on it.

    Attributes:
        weights: ``[R, N]`` how often each image is drawn; see :func:`resample_weights`.
        groups: ``[N]`` str patients, or None where none is known.
        units: number of what is drawn: of images, or of patients where they are known.
        members: ``[N]`` whole numbers from 0, equal for images of one patient; None where no patient is known.
    """

    weights: np.ndarray
    groups: np.ndarray | None
    units: int
    members: np.ndarray | None = None


def draw(n: int, resamples: int, seed: int, patients: np.ndarray | None = None) -> Resamples:
    """Resamples of ``n`` images, of whole patients where any of ``[n]`` patients is known; see :func:`resample_weights`."""
    groups = patients if patients is not None and (np.asarray(patients) != "").any() else None
    weights = resample_weights(n, resamples, seed, groups)
    members = None if groups is None else group_indices(groups)
    return Resamples(weights, groups, n if members is None else int(members.max()) + 1, members)


def blocks(weights: np.ndarray) -> Iterator[np.ndarray]:
    """The ``[R, N]`` weights as float64 in blocks of bounded memory; one empty block where ``R`` is 0."""
    rows = max(1, BLOCK_CELLS // weights.shape[1])
    for start in range(0, max(1, len(weights)), rows):
        yield weights[start : start + rows].astype(np.float64)


@dataclass(frozen=True)
class Ranking:
    """One class against the rest, sorted once: ranking figures then cost one cumulative sum per resample.

    ``P`` is the number of positives. Positions count images in ascending order of score.

    Attributes:
        order: ``[N]`` images by ascending score.
        positives: ``[P]`` images of the class by ascending score.
        below: ``[P]`` number of images that score strictly lower than each positive.
        upto: ``[P]`` number of images that score no higher than each positive, ties and itself included.
        positives_below: ``[P]`` number of positives that score strictly lower than each positive.
    """

    order: np.ndarray
    positives: np.ndarray
    below: np.ndarray
    upto: np.ndarray
    positives_below: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray) -> Ranking:
        """Sort ``[N]`` scores of one class; ``[N]`` truth (0 or 1) says which images belong to it."""
        order = np.argsort(scores, kind="stable")
        positives = order[truth[order] > 0]
        ascending, own = scores[order], scores[positives]
        return cls(
            order=order,
            positives=positives,
            below=np.searchsorted(ascending, own, side="left"),
            upto=np.searchsorted(ascending, own, side="right"),
            positives_below=np.searchsorted(own, own, side="left"),
        )

    def auc_and_ap(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Area under the ROC curve and average precision, ``[R]`` each, under ``[R, N]`` weights.

        Ties count as scikit-learn counts them: half in the AUC, as one threshold in the average precision.
        NaN where the resample holds no positive or no negative.
        """
        drawn = _from_zero(np.cumsum(weights[:, self.order], axis=1))
        own = weights[:, self.positives]
        cumulated = _from_zero(np.cumsum(own, axis=1))
        below = drawn[:, self.below]
        total, positive = drawn[:, -1], cumulated[:, -1]
        negative = total - positive
        # Positives beating positives, ties halved, make up half of positive squared; the rest is negatives.
        wins = (own * (below + drawn[:, self.upto])).sum(axis=1) / 2 - positive**2 / 2
        selected = total[:, None] - below
        hits = positive[:, None] - cumulated[:, self.positives_below]
        precision = np.divide(hits, selected, out=np.zeros_like(hits), where=selected > 0)
        usable = (positive > 0) & (negative > 0)
        return (
            divide(wins, np.where(usable, positive * negative, 0)),
            divide((own * precision).sum(axis=1), np.where(usable, positive, 0)),
        )

    def precision_without_self(self) -> float:
        """Mean over positives of the precision among the other images that score as high; 1 where there is no other.

        The average precision counts every positive as found by its own score, which flatters few: with 10 of 100 by some
        hundredths. NaN without both sides.
        """
        images, positive = len(self.order), len(self.positives)
        if not 0 < positive < images:
            return float("nan")
        others, hits = images - self.below - 1, positive - self.positives_below - 1
        return float(np.where(others > 0, hits / np.maximum(others, 1), 1.0).mean())

    def derivatives(self) -> tuple[np.ndarray, np.ndarray]:
        """How far each image moves the AUC and the average precision: ``[N]`` each, at weights of one.

        Of the AUC these are DeLong's components, centred and divided by the images of their side. NaN without both sides.
        """
        images, positive = len(self.order), len(self.positives)
        negative = images - positive
        if not positive or not negative:
            return np.full(images, np.nan), np.full(images, np.nan)
        place = np.arange(images)
        upto_own = np.searchsorted(self.below, self.below, side="right")
        beaten = (self.below - self.positives_below + self.upto - upto_own) / (2 * negative)
        reached = np.searchsorted(self.below, place, side="right")
        area = np.empty(images)
        above = 1 - (reached + np.searchsorted(self.upto, place, side="right")) / (2 * positive)
        area[self.order] = (above - beaten.mean()) / negative
        area[self.positives] = (beaten - beaten.mean()) / positive

        selected, hits = images - self.below, positive - self.positives_below
        gained, lost = (_from_zero(np.cumsum(part[None], axis=1))[0] for part in (1 / selected, hits / selected**2))
        precision = np.empty(images)
        precision[self.order] = -lost[reached] / positive
        own = hits / selected
        precision[self.positives] += (own - own.mean() + gained[upto_own]) / positive
        return area, precision


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient of two float arrays, NaN where the denominator is 0: not defined is never a silent 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def percentile(resampled: np.ndarray, level: float = 0.95) -> tuple[float | None, float | None]:
    """Percentile interval of ``[R]`` resampled values of one figure.

    Resamples in which the figure is not defined (NaN) are left out; ``(None, None)`` if they are more than
    half, or if there are none at all.
    """
    defined = resampled[~np.isnan(resampled)]
    if len(defined) == 0 or 2 * len(defined) < len(resampled):
        return None, None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share, ``successes`` of ``n`` independent trials; ends in [0, 1]."""
    from scipy.stats import norm

    if not 0 <= successes <= n or n <= 0:
        raise UsageError(f"A share needs 0 <= successes <= n and n > 0, got {successes} of {n}.")
    z = float(norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # At 0 of n and n of n the end is exact; rounding must not push it past.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def _from_zero(cumulated: np.ndarray) -> np.ndarray:
    """``[R, N]`` cumulative sums to ``[R, N + 1]``: column ``i`` is the sum of the first ``i``."""
    return np.concatenate([np.zeros((len(cumulated), 1)), cumulated], axis=1)

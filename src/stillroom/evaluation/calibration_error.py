"""Is a classifier calibrated? An error without the bias of few images, a test, and what a perfect one would show.

The usual expected calibration error is a mean of absolute gaps, which chance alone keeps away from zero: of a perfectly
calibrated classifier it is .08 on 100 images. Here the squared gap of a bin is estimated from pairs of *different* images
(of different patients), whose chance errors have nothing in common, so that its mean is right whatever the number of
images (after Kumar, Liang and Ma 2019, "Verified uncertainty calibration", section 5, who take variances away instead).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import Any

import numpy as np

from stillroom.evaluation.calibration import NEEDED, equal_width
from stillroom.evaluation.intervals import BLOCK_CELLS, group_indices
from stillroom.task import Task

TOLERANCE = 0.05
"""A calibration error below this asks for no recalibration: a stated 80 % is then 75 to 85 % in truth."""
LEVEL = 0.95
MOST_BINS, PAIRS_A_BIN = 15, 20
SIMULATED = 2000
FEW_ERRORS = 100
"""Below so many expected errors the test's distribution is simulated; above, it is chi-square's."""
WIDENED = 1.1
"""Chance is taken for a tenth larger than estimated: without it intervals of 500 images hold the truth in 92 %."""
CALIBRATED, NOT_SHOWN = "calibrated", "not shown"


@dataclass(frozen=True)
class _Pairs:
    """What is stated and what came true, ``P`` pairs of ``C`` clusters (patients, or images).

    Attributes:
        stated: ``[P]`` float64 confidence, strictly between 0 and 1.
        true: ``[P]`` float64, 0 or 1.
        cluster: ``[P]`` int64 from 0; chance is shared within one, and not between two.
        clusters: their number ``C``.
        design: by how much sharing inflates the variance of sums, 1 or more (Kish's design effect).
    """

    stated: np.ndarray
    true: np.ndarray
    cluster: np.ndarray
    clusters: int
    design: float

    @property
    def variance(self) -> np.ndarray:
        """Of each outcome, were its statement true."""
        return self.stated * (1 - self.stated)


def calibration_error(
    task: Task, probabilities: np.ndarray, targets: np.ndarray, patients: np.ndarray | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """How far stated confidence is from what comes true, and whether that can be chance. Ready for JSON.

    Exclusive classes: confidence in the class decided for. Multi-label: every label's probability.

    Args:
        probabilities: ``[N, K]`` in [0, 1].
        targets: in the task's form.
        patients: ``[N]`` str, ``""`` where unknown; outcomes of one patient may depend on each other.
        seed: of the simulations.

    Returns:
        - ``error``: root mean square of the gaps over bins of equal count, without what chance adds, as ``value``, ``low``
          and ``high`` (95 %: the errors under which the one found is not in the outer 2.5 % on either side).
        - ``ece_if_calibrated``: what the usual calibration error, over 15 bins of equal width, would be on average for a
          perfectly calibrated classifier with these confidences.
        - ``stated`` and ``true``: mean confidence, and the share that came true.
        - ``p_value``: of the hypothesis that every confidence is true (score test of intercept and slope of Cox's
          recalibration; Miller, Hui and Tierney 1991, "Validation techniques for logistic regression models").
        - ``brier``: the Brier score of the confidence as ``miscalibration`` - ``discrimination`` + ``uncertainty`` (Murphy
          1973), the parts without what chance adds, so that a small one can be negative (Ferro and Fricker 2012).
        - ``design_effect``: by how much what a patient's images share inflates the variance of chance, 1 or more.
        - ``verdict``: "recalibration needed" (p below .05, and an error of .05 is not ruled out), "calibrated" (it is
          ruled out) or "not shown" (too few images for either).

        None where not defined: all images are of one patient.
    """
    pairs = _pairs(task, probabilities, targets, patients)
    generator = np.random.default_rng(seed)
    squared, low, high = _error(pairs, generator)
    p_value = _p_value(pairs, generator)
    return {
        "error": {"value": None if squared is None else sqrt(max(0.0, squared)), "low": low, "high": high},
        "ece_if_calibrated": _ece_if_calibrated(pairs),
        "stated": float(pairs.stated.mean()),
        "true": float(pairs.true.mean()),
        "p_value": p_value,
        "design_effect": pairs.design,
        "brier": None if squared is None else _brier(pairs, squared),
        "verdict": _verdict(p_value, high),
    }


def calibration_words(found: dict[str, Any]) -> str:
    """One sentence for people on what :func:`calibration_error` found."""
    error, stated, true = found["error"], 100 * found["stated"], 100 * found["true"]
    if found["p_value"] is None:
        return "Whether stated confidence is true cannot be judged: all images are of one patient."
    span = f"{error['value']:.3f} ({error['low']:.3f}-{error['high']:.3f})"
    chance = "p < .001" if found["p_value"] < 0.001 else f"p = {found['p_value']:.3f}"
    surely = found["p_value"] < 1 - LEVEL
    if found["verdict"] == NEEDED and error["low"] > 0:
        return (
            f"Recalibration is needed: {stated:.0f} % is stated on average and {true:.0f} % comes true; the calibration "
            f"error of {span} is hardly chance ({chance})."
        )
    if found["verdict"] == NEEDED:
        return (
            f"Recalibration is needed: {stated:.0f} % is stated on average and {true:.0f} % comes true, and that confidences "
            f"are off together, all too high, too low or too extreme, is hardly chance ({chance}). How large the error is "
            f"is less sure: {span}, because it is estimated bin by bin, from few images each."
        )
    if found["verdict"] == CALIBRATED:
        small = f" What there is is hardly chance ({chance}), but small." if surely else ""
        return f"Calibrated: the calibration error is {span}, below {TOLERANCE:g} in all its interval.{small}"
    return (
        f"Whether recalibration is needed is not shown: the calibration error is {span}; chance can explain it ({chance}), "
        f"but more than {TOLERANCE:g} is not ruled out."
    )


def _pairs(task: Task, probabilities: np.ndarray, targets: np.ndarray, patients: np.ndarray | None) -> _Pairs:
    confidence, true = task.confidence(probabilities, targets)
    stated = np.clip(np.asarray(confidence, dtype=np.float64), 1e-6, 1 - 1e-6)
    images = len(probabilities)
    units = np.arange(images) if patients is None else group_indices(patients)
    cluster, clusters = np.repeat(units, len(stated) // images), int(units.max()) + 1
    design = 1.0
    if 1 < clusters < len(stated):
        directions, variance = _directions(stated), stated * (1 - stated)
        # What intercept and slope explain is no chance that a patient's images share.
        residual = true - stated - variance * (directions @ ((true - stated) @ directions))
        scores = residual[:, None] * directions
        summed = np.stack([np.bincount(cluster, column, clusters) for column in scores.T])
        design = max(1.0, float((summed**2).sum()) / 2 * clusters / (clusters - 1))
    return _Pairs(stated, true, cluster, clusters, design)


def _directions(stated: np.ndarray) -> np.ndarray:
    """``[P, 2]``: by it outcomes minus statements give the scores of intercept and slope, each of variance 1 by chance."""
    variance = stated * (1 - stated)
    slope = np.log(stated) - np.log1p(-stated)
    slope = slope - (variance * slope).sum() / variance.sum()
    both = np.stack([np.ones_like(stated), slope], axis=1)
    length = np.sqrt((variance[:, None] * both**2).sum(axis=0))
    return np.divide(both, length, out=np.zeros_like(both), where=length > 1e-9)


def _p_value(pairs: _Pairs, generator: np.random.Generator) -> float | None:
    from scipy.stats import chi2, f

    if pairs.clusters < 2:
        return None
    directions = _directions(pairs.stated)
    found = float((((pairs.true - pairs.stated) @ directions) ** 2).sum()) / pairs.design
    p_value = float(chi2.sf(found, 2))
    if pairs.variance.sum() < FEW_ERRORS:
        rows, as_extreme = max(1, BLOCK_CELLS // len(pairs.stated)), 0
        for start in range(0, SIMULATED, rows):
            drawn = generator.random((min(rows, SIMULATED - start), len(pairs.stated))) < pairs.stated
            chance = (((drawn - pairs.stated) @ directions) ** 2).sum(axis=1)
            as_extreme += int((chance >= found - 1e-9).sum())
        p_value = (1 + as_extreme) / (1 + SIMULATED)
    if pairs.clusters < len(
        pairs.stated
    ):  # the design effect was estimated, from so many clusters as their weights count
        weight = np.bincount(pairs.cluster, pairs.variance)
        freedom = max(1.0, weight.sum() ** 2 / (weight**2).sum() - 1)
        p_value = float(f.sf(chi2.isf(p_value, 2) / 2, 2, freedom))
    return p_value


def _between(values: np.ndarray, pairs: _Pairs, place: np.ndarray, bins: int) -> float | None:
    """Mean product of two values of different clusters in one bin, over bins by their count; None where there are none."""
    cell = place * pairs.clusters + pairs.cluster
    sums = np.bincount(cell, values, bins * pairs.clusters).reshape(bins, -1)
    counts = np.bincount(cell, minlength=bins * pairs.clusters).reshape(bins, -1).astype(np.float64)
    products, ordered = (np.square(cells.sum(axis=1)) - np.square(cells).sum(axis=1) for cells in (sums, counts))
    held = ordered > 0
    if not held.any():
        return None
    return float(np.average(products[held] / ordered[held], weights=counts.sum(axis=1)[held]))


def _bins(pairs: _Pairs) -> tuple[np.ndarray, int]:
    """``[P]`` bin of each pair by its confidence, of equal count, and their number."""
    count = len(pairs.stated)
    bins = int(np.clip(count // PAIRS_A_BIN, 1, MOST_BINS))
    place = np.empty(count, dtype=np.int64)
    place[np.argsort(pairs.stated, kind="stable")] = np.arange(count) * bins // count
    return place, bins


def _error(pairs: _Pairs, generator: np.random.Generator) -> tuple[float | None, float | None, float | None]:
    """The mean squared gap, and the bounds of its root."""
    place, bins = _bins(pairs)
    squared = _between(pairs.true - pairs.stated, pairs, place, bins)
    if squared is None:
        return None, None, None
    counts = np.bincount(place, minlength=bins)
    gap = np.bincount(place, pairs.true - pairs.stated, bins) / counts
    # A pair more that came true and one that did not (Agresti and Coull): a bin where all came true has a chance error, too.
    share = (np.bincount(place, pairs.true, bins) + 1) / (counts + 2)
    chance = WIDENED * np.sqrt(pairs.design * share * (1 - share) / counts)
    weight = counts / counts.sum()
    length = sqrt(float((weight * gap**2).sum()))
    towards = gap / length if length > 0 else np.ones(bins)
    # An error of t in the direction that was found gives t^2 + 2 t a + b, were the images drawn again.
    normal = generator.standard_normal((SIMULATED, bins))
    a, b = normal @ (weight * towards * chance), (normal**2 - 1) @ (weight * chance**2)
    steps = np.linspace(0, 1, 201)
    drawn = steps[:, None] ** 2 + 2 * steps[:, None] * a + b
    tail = (1 - LEVEL) / 2
    # Below the middle of chance itself nothing is learnt of small errors.
    above, below = (drawn >= squared).mean(axis=1), (drawn <= max(squared, float(np.median(b)))).mean(axis=1)
    low, high = steps[above > tail].min(initial=1.0), steps[below > tail].max(initial=0.0)
    return squared, float(min(low, sqrt(max(0.0, squared)))), float(max(high, sqrt(max(0.0, squared))))


def _brier(pairs: _Pairs, squared: float) -> dict[str, float]:
    right = pairs.true.mean()
    shared = _between(pairs.true - right, pairs, np.zeros(len(pairs.true), dtype=np.int64), 1) or 0.0
    score, uncertainty = float(((pairs.stated - pairs.true) ** 2).mean()), float(right * (1 - right) - shared)
    return {
        "score": score,
        "miscalibration": squared,
        "discrimination": squared + uncertainty - score,
        "uncertainty": uncertainty,
    }


def _ece_if_calibrated(pairs: _Pairs) -> float:
    variance = np.bincount(equal_width(pairs.stated), pairs.variance)
    return float(np.sqrt(2 / pi * pairs.design * variance).sum()) / len(pairs.stated)


def _verdict(p_value: float | None, high: float | None) -> str:
    if p_value is None or high is None:
        return NOT_SHOWN
    if high < TOLERANCE:
        return CALIBRATED
    return NEEDED if p_value < 1 - LEVEL else NOT_SHOWN

"""Is a classifier calibrated? An error without the bias of few images, a test, and what a perfect one would show.

The usual expected calibration error is a mean of absolute gaps, which chance alone keeps away from zero: of a perfectly
calibrated classifier it is .08 on 100 images. Here the squared gap of a bin is estimated from pairs of *different* images
(of different patients), whose chance errors have nothing in common, so that its mean is right whatever the number of
images (after Kumar, Liang and Ma 2019, "Verified uncertainty calibration", section 5, who take variances away instead).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi, sqrt
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
MOST_FREEDOM = 1e6
"""From so many degrees of freedom on, those of a variance no longer matter."""
HELD_BACK = 0.1
"""Inverse variance of the prior on the log odds' intercept and slope; without one, all right has no finite fit."""
CALIBRATED, NOT_SHOWN = "calibrated", "not shown"


@dataclass(frozen=True)
class _Pairs:
    """What is stated and what came true, ``P`` pairs of ``C`` clusters (patients, or images).

    Attributes:
        stated: ``[P]`` float64 confidence, strictly between 0 and 1.
        true: ``[P]`` float64, 0 or 1.
        cluster: ``[P]`` int64 from 0; chance is shared within one, and not between two.
        clusters: their number ``C``.
        correlation: of outcomes within one, 0 to 1.
        design: by how much that inflates the variance of sums, from 1 to the largest cluster's size (the design effect).
        freedom: degrees of freedom from which both are estimated.
    """

    stated: np.ndarray
    true: np.ndarray
    cluster: np.ndarray
    clusters: int
    correlation: float
    design: float
    freedom: float

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
          perfectly calibrated classifier with these confidences, its outcomes independent.
        - ``stated`` and ``true``: mean confidence, and the share that came true.
        - ``p_value``: of the hypothesis that every confidence is true (score test of intercept and slope of Cox's
          recalibration; Miller, Hui and Tierney 1991, "Validation techniques for logistic regression models").
        - ``brier``: the Brier score of the confidence as ``miscalibration`` - ``discrimination`` + ``uncertainty`` (Murphy
          1973), the parts without what chance adds, so that a small one can be negative (Ferro and Fricker 2012).
        - ``design_effect``: by how much what a patient's images share, besides misfit, inflates the variance of chance: from
          1 to the largest patient's number of images (pairs of image and label, for several labels).
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
    span = f"{error['value']:.3f} ({error['low']:.3f} to {error['high']:.3f})"
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
    correlation, design, freedom = 0.0, 1.0, inf
    if 1 < clusters < len(stated):
        correlation, design, freedom = _dependence(stated, true, cluster, clusters)
    return _Pairs(stated, true, cluster, clusters, correlation, design, freedom)


def _dependence(stated: np.ndarray, true: np.ndarray, cluster: np.ndarray, clusters: int) -> tuple[float, float, float]:
    """Correlation of a cluster's outcomes, its design effect, and how many degrees of freedom both rest on.

    Both from residuals to the recalibrated confidence: what recalibration explains is misfit, which all share, and not
    chance that a cluster shares. The design effect is Kish's ("Survey Sampling", 1965), 1 + correlation x (size - 1), for
    clusters of unequal size.
    """
    fitted = _recalibrated(stated, true)
    spread = np.sqrt(fitted * (1 - fitted))
    # Two fitted coefficients take from sums of clusters more than from single outcomes.
    sums = np.bincount(cluster, true - fitted, clusters)
    alone = float(((true - fitted) ** 2).sum()) * len(true) / max(1, len(true) - 2)
    products = float((sums**2).sum()) * clusters / max(1, clusters - 2) - alone
    most = _shared(spread, cluster)
    # One cluster more that was wholly wrong: where errors are few, that each is of another cluster shows little.
    sizes = np.bincount(cluster)
    more = float((sizes * (sizes - 1)).sum() / (sizes > 1).sum())
    correlation = float(np.clip((products + more) / (most * (spread**2).sum() + more), 0, 1))
    # A product of two independent residuals varies by the product of their variances; as 2 D^2 / Var(D) of a variance D.
    squares = np.square(np.bincount(cluster, spread**2, clusters)).sum() - (spread**4).sum()
    freedom = float((spread**2).sum() ** 2 / max(squares, 1e-12))
    return correlation, 1 + correlation * most, float(np.clip(freedom, 1, MOST_FREEDOM))


def _shared(weight: np.ndarray, cluster: np.ndarray) -> float:
    """The inflation of a weighted sum's variance, less 1, were the outcomes of a cluster one; below its largest size."""
    alone = float(np.square(weight).sum())
    return max(0.0, float(np.square(np.bincount(cluster, weight)).sum()) / alone - 1) if alone > 0 else 0.0


def _recalibrated(stated: np.ndarray, true: np.ndarray) -> np.ndarray:
    """``[P]`` confidence after Cox's recalibration, its intercept and slope held back a little where all came true."""
    from scipy.optimize import minimize
    from scipy.special import expit

    odds = np.log(stated) - np.log1p(-stated)
    design = np.stack([np.ones_like(odds), (odds - odds.mean()) / max(float(odds.std()), 1e-6)], axis=1)

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        found = design @ line
        value = np.logaddexp(0, found).sum() - true @ found + HELD_BACK * line @ line / 2
        return float(value), design.T @ (expit(found) - true) + HELD_BACK * line

    return expit(design @ minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x)


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
    scores = np.square((pairs.true - pairs.stated) @ directions)
    spread = np.sqrt(pairs.variance)[:, None] * directions
    shared = np.array([_shared(column, pairs.cluster) for column in spread.T])
    inflated = 1 + pairs.correlation * shared
    p_value = float(chi2.sf((scores / inflated).sum(), 2))
    if pairs.variance.sum() / inflated.max() < FEW_ERRORS:
        rows, as_extreme = max(1, BLOCK_CELLS // len(pairs.stated)), 0
        for start in range(0, SIMULATED, rows):
            drawn = _drawn(pairs, min(rows, SIMULATED - start), generator) - pairs.stated
            chance = np.square(drawn @ directions) / inflated
            as_extreme += int((chance.sum(axis=1) >= (scores / inflated).sum() - 1e-9).sum())
        p_value = (1 + as_extreme) / (1 + SIMULATED)
    if pairs.freedom < inf:  # the correlation was estimated
        p_value = float(f.sf(chi2.isf(p_value, 2) / 2, 2, pairs.freedom))
    return p_value


def _drawn(pairs: _Pairs, studies: int, generator: np.random.Generator) -> np.ndarray:
    """``[studies, P]`` bool outcomes of true statements; two of a cluster come from one draw as often as they correlate."""
    draws = generator.random((studies, len(pairs.stated)))
    if pairs.correlation > 0:
        alike = generator.random(draws.shape) < sqrt(pairs.correlation)
        draws = np.where(alike, generator.random((studies, pairs.clusters))[:, pairs.cluster], draws)
    return draws < pairs.stated


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
    return float(np.sqrt(2 / pi * variance).sum()) / len(pairs.stated)


def _verdict(p_value: float | None, high: float | None) -> str:
    if p_value is None or high is None:
        return NOT_SHOWN
    if high < TOLERANCE:
        return CALIBRATED
    return NEEDED if p_value < 1 - LEVEL else NOT_SHOWN

"""What several seeds on the same test images say: means, intervals over seeds and images, ranks, and tests over data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np

from stillroom.evaluation.intervals import group_indices, joint_interval, resample_weights
from stillroom.evaluation.metrics import checked, figures
from stillroom.files.cache import fingerprint
from stillroom.task import Task

LEVEL = 0.95
FEWEST_SETS = 6
"""Fewer data sets than this are too few for a test over data sets: of 5, Wilcoxon's smallest two-sided p is 0.0625."""

Verdict = Literal["beats its control", "no difference seen", "worse", "not compared"]


@dataclass(frozen=True)
class Spread:
    """One run's test figures and how far they move when the test images are drawn again.

    Attributes:
        images: names the test images, their labels and patients; figures of runs with equal names are paired.
        units: number of test images, or of patients where they are known.
        values: figure by name; NaN where it is not defined.
        resampled: by name, ``[R]``: the same figure on each bootstrap resample.
    """

    images: str
    units: int
    values: dict[str, float]
    resampled: dict[str, np.ndarray]


@dataclass(frozen=True)
class Mean:
    """A mean over ``S`` seeds.

    Attributes:
        value: the mean; NaN where a seed's figure is not defined.
        sd: standard deviation over seeds; None for one seed.
        low, high: ends of the 95 % interval, see :func:`~stillroom.evaluation.intervals.joint_interval`; None where there is
            none.
        seeds: ``S``.
    """

    value: float
    sd: float | None
    low: float | None
    high: float | None
    seeds: int


def spread(
    task: Task,
    probabilities: np.ndarray,
    targets: np.ndarray,
    ids: Sequence[str],
    patients: np.ndarray | None,
    names: Sequence[str],
    *,
    resamples: int = 1000,
) -> Spread:
    """Figures of one run and their bootstrap.

    The resamples are drawn from the test images' own name: two runs on the same images are scored on the same resamples,
    so what makes an image hard for both cancels out of their difference; other images give other resamples.

    Args:
        probabilities: ``[N, K]``.
        targets: in the task's form.
        ids: ``N`` names of the images.
        patients: ``[N]`` str; whole patients are resampled. ``""`` or None where unknown.
        names: which figures, by the names of metrics.json.
    """
    probabilities = checked(task, probabilities, targets)
    groups = None if patients is None or not (np.asarray(patients) != "").any() else np.asarray(patients)
    known = None if groups is None else groups.tolist()
    images = fingerprint(list(ids), task.describe(), np.asarray(targets).tolist(), known)
    weights = resample_weights(len(targets), resamples, int(images[:12], 16), groups)
    value = figures(task, probabilities, targets, np.ones((1, len(targets)))).overall
    moved = figures(task, probabilities, targets, weights).overall
    return Spread(
        images=images,
        units=len(targets) if groups is None else len(np.unique(group_indices(groups))),
        values={name: float(value[name][0]) for name in names},
        resampled={name: moved[name] for name in names},
    )


def mean_of(spreads: Sequence[Spread], name: str, bounds: tuple[float, float] = (-1.0, 1.0)) -> Mean:
    """One figure of one system, over its seeds. The interval is cut at ``bounds``."""
    return _mean([s.values[name] for s in spreads], [s.resampled[name] for s in spreads], spreads, bounds)


def difference_of(first: Mapping[int, Spread], second: Mapping[int, Spread], name: str) -> Mean | None:
    """``first`` minus ``second`` in one figure, paired by seed and test image; None without a seed in common.

    Args:
        first: seed to figures of the system.
        second: seed to figures of its control. A seed whose test images differ between the two is left out.
    """
    pairs = [
        (first[seed], second[seed])
        for seed in sorted(set(first) & set(second))
        if first[seed].images == second[seed].images
    ]
    if not pairs:
        return None
    values = [a.values[name] - b.values[name] for a, b in pairs]
    return _mean(values, [a.resampled[name] - b.resampled[name] for a, b in pairs], [a for a, _ in pairs], (-2.0, 2.0))


def verdict(difference: Mean | None) -> Verdict:
    """What a difference to the control allows to say; higher figures are better."""
    if difference is None or np.isnan(difference.value):
        return "not compared"
    if difference.low is None or difference.high is None:
        return "no difference seen"
    if difference.low > 0:
        return "beats its control"
    return "worse" if difference.high < 0 else "no difference seen"


def average_ranks(table: np.ndarray) -> np.ndarray:
    """Mean rank of each of ``k`` systems over ``N`` data sets, 1 for the best; ``[N, k]`` figures, higher is better."""
    from scipy.stats import rankdata

    return rankdata(-table, axis=1).mean(axis=0)


def compare_over_sets(table: np.ndarray, labels: Sequence[str], controls: Sequence[int | None]) -> dict[str, Any]:
    """Tests over data sets, which are the independent observations here (Demsar, JMLR 7, 2006).

    Args:
        table: ``[N, k]`` one mean figure per data set and system, higher is better.
        labels: of the ``k`` systems.
        controls: for each system the column of its control; None for a control.

    Returns:
        ``sets``; ``ranks`` by label; ``friedman_p`` (three systems or more) and ``critical_difference`` (Nemenyi's: mean
        ranks that differ by less are not told apart at 5 %), else None; ``wilcoxon``: system to ``p`` (two-sided signed
        ranks against its control) and ``holm`` (adjusted for their number); ``note``: why there are none.
    """
    from scipy.stats import friedmanchisquare, wilcoxon

    sets, k = table.shape
    ranks = average_ranks(table) if k > 1 and sets else np.full(k, np.nan)
    found: dict[str, Any] = {
        "sets": sets,
        "ranks": dict(zip(labels, ranks.tolist(), strict=True)),
        "friedman_p": None,
        "critical_difference": None,
        "wilcoxon": {},
        "note": "",
    }
    if sets < FEWEST_SETS or k < 2:
        found["note"] = (
            f"Too few data sets for a test over them: {sets}, at least {FEWEST_SETS} are needed."
            if k > 1
            else "There is one system only, so nothing is compared over data sets."
        )
        return found
    if k > 2:
        same = bool((table == table[:, :1]).all())
        found["friedman_p"] = 1.0 if same else float(friedmanchisquare(*table.T).pvalue)
        found["critical_difference"] = nemenyi(k, sets)
    against = {label: (column, control) for column, (label, control) in enumerate(zip(labels, controls, strict=True))}
    p_values = {}
    for label, (column, control) in against.items():
        if control is not None:
            gains = table[:, column] - table[:, control]
            p_values[label] = float(wilcoxon(gains).pvalue) if gains.any() else 1.0
    adjusted = holm(list(p_values.values()))
    found["wilcoxon"] = {label: {"p": p, "holm": q} for (label, p), q in zip(p_values.items(), adjusted, strict=True)}
    return found


def nemenyi(systems: int, sets: int, level: float = LEVEL) -> float:
    """Critical difference of mean ranks: ``q sqrt(k (k + 1) / (6 N))``, ``q`` the studentised range over root 2."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(level, systems, np.inf)) / sqrt(2)
    return q * sqrt(systems * (systems + 1) / (6 * sets))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment of several p-values, in their order."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _mean(
    values: Sequence[float], resampled: Sequence[np.ndarray], spreads: Sequence[Spread], bounds: tuple[float, float]
) -> Mean:
    found = np.asarray(values, dtype=np.float64)
    low, high = joint_interval(found, np.stack(resampled), min(s.units for s in spreads))
    return Mean(
        value=float(found.mean()),
        sd=float(found.std(ddof=1)) if len(found) > 1 else None,
        low=None if low is None else max(bounds[0], low),
        high=None if high is None else min(bounds[1], high),
        seeds=len(found),
    )

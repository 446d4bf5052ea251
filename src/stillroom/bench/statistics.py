"""What several seeds on the same test images say: means, intervals over seeds and images, ranks, and tests over data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Literal

import numpy as np

from stillroom.evaluation.effective import Moved
from stillroom.evaluation.intervals import draw
from stillroom.evaluation.joint import joint_difference, joint_figure
from stillroom.evaluation.metrics import measure
from stillroom.files.cache import fingerprint
from stillroom.task import Task

LEVEL = 0.95
FEWEST_SETS = 6
"""Fewer data sets than this are too few for a test over data sets: of 5, Wilcoxon's smallest two-sided p is 0.0625."""

Verdict = Literal["beats its control", "no difference seen", "worse", "not compared"]


@dataclass(frozen=True)
class Spread:
    """One run's test figures and how far the test images move them.

    Attributes:
        images: names the test images, their labels and patients; figures of runs with equal names are paired.
        units: number of test images, or of patients where they are known.
        figures: by name, with what each image (or patient) moves them by.
    """

    images: str
    units: int
    figures: dict[str, Moved]

    @property
    def values(self) -> dict[str, float]:
        """Figure by name; NaN where it is not defined."""
        return {name: moved.value for name, moved in self.figures.items()}


@dataclass(frozen=True)
class Mean:
    """A mean over ``S`` seeds.

    Attributes:
        value: the mean; NaN where a seed's figure is not defined.
        sd: standard deviation over seeds; None for one seed.
        low, high: ends of the 95 % interval, see :mod:`~stillroom.evaluation.joint`; None where there is
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
) -> Spread:
    """Figures of one run, and how its test images move them.

    Args:
        probabilities: ``[N, K]``.
        targets: in the task's form.
        ids: ``N`` names of the images.
        patients: ``[N]`` str; whole patients then count. ``""`` or None where unknown.
        names: which figures, by the names of metrics.json.
    """
    groups = None if patients is None or not (np.asarray(patients) != "").any() else np.asarray(patients)
    known = None if groups is None else groups.tolist()
    drawn = draw(len(targets), 0, 0, groups)
    measured = measure(task, probabilities, targets, drawn)
    return Spread(
        images=fingerprint(list(ids), task.describe(), np.asarray(targets).tolist(), known),
        units=drawn.units,
        figures={name: measured.moved(name) for name in names},
    )


def mean_of(spreads: Sequence[Spread], name: str, ends: tuple[float, float] = (0.0, 1.0)) -> Mean:
    """One figure of one system, over its seeds; ``ends`` are its smallest and largest value."""
    return _mean([s.values[name] for s in spreads], joint_figure(_together(spreads, name), ends), ends)


def difference_of(
    first: Mapping[int, Spread], second: Mapping[int, Spread], name: str, ends: tuple[float, float] = (0.0, 1.0)
) -> Mean | None:
    """``first`` minus ``second`` in one figure, paired by seed and test image; None without a seed in common.

    Args:
        first: seed to figures of the system.
        second: seed to figures of its control. A seed whose test images differ between the two is left out.
        ends: smallest and largest value of the figure.
    """
    pairs = [
        (first[seed], second[seed])
        for seed in sorted(set(first) & set(second))
        if first[seed].images == second[seed].images
    ]
    if not pairs:
        return None
    values = [a.values[name] - b.values[name] for a, b in pairs]
    width = ends[1] - ends[0]
    moved = [_together([pair[side] for pair in pairs], name) for side in (0, 1)]
    return _mean(values, joint_difference(moved[0], moved[1], width), (-width, width))


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


def _together(spreads: Sequence[Spread], name: str) -> list[Moved]:
    """The figure of every seed, moved by the images of all: seeds that were tested on other images move independently."""
    sizes = {s.images: len(s.figures[name].moves) for s in spreads}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    found = []
    for s in spreads:
        moves = np.zeros(sum(sizes.values()))
        moves[starts[s.images] : starts[s.images] + sizes[s.images]] = s.figures[name].moves
        found.append(replace(s.figures[name], moves=moves))
    return found


def _mean(values: Sequence[float], ends: tuple[float | None, float | None], bounds: tuple[float, float]) -> Mean:
    found, (low, high) = np.asarray(values, dtype=np.float64), ends
    return Mean(
        value=float(found.mean()),
        sd=float(found.std(ddof=1)) if len(found) > 1 else None,
        low=None if low is None else max(bounds[0], low),
        high=None if high is None else min(bounds[1], high),
        seeds=len(found),
    )

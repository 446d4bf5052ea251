"""The luck of training and that of the images in one interval: several trainings on one split, or one on each of several.

From one training a figure says how good these weights are, and nothing of how good those of another seed would be. Two
ways of asking have their own arithmetic:

- **repeats**: ``K`` trainings on one split, tested on the same images. The mean's variance is that over trainings,
  divided by ``K``, and what the test images (or patients) move the mean by
  (:mod:`~stillroom.evaluation.joint`).
- **folds**: ``K`` cuts, a training and test images for each. Training sets overlap, so the cuts' figures depend on each
  other and the variance over them, divided by ``K``, is too small. Nadeau and Bengio (Machine Learning 52, 2003) divide
  by less: ``(1 / K + n_test / n_train) s^2``, with Student's t of ``K - 1`` degrees of freedom.

proofs/luck.py simulates both where the truth is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import numpy as np

from stillroom.errors import UsageError
from stillroom.evaluation.comparison import doubt, judge, rarest
from stillroom.evaluation.effective import Moved
from stillroom.evaluation.figures import figures
from stillroom.evaluation.intervals import LEVEL, draw
from stillroom.evaluation.joint import joint_difference, joint_figure
from stillroom.evaluation.metrics import measure
from stillroom.evaluation.roles import STUDENT, noun
from stillroom.task import Task

Kind = Literal["repeats", "folds"]
_BOUNDS = {"auc": (0.0, 1.0), "accuracy": (0.0, 1.0), "quadratic_kappa": (-1.0, 1.0)}


@dataclass(frozen=True)
class Training:
    """What one training left: of ``n`` test images and ``K`` classes.

    Attributes:
        probabilities: role to ``[n, K]`` calibrated probabilities of the test images.
        targets: of these images, in the task's form.
        patients: ``[n]`` str, ``""`` where unknown; None where there are none.
        ids: ``[n]`` str, names of the images.
        train_images: number of images trained on.
        validation: role to the selection metric on validation; NaN where it is not defined.
    """

    probabilities: dict[str, np.ndarray]
    targets: np.ndarray
    patients: np.ndarray | None
    ids: np.ndarray
    train_images: int
    validation: dict[str, float]


@dataclass(frozen=True)
class _Samples:
    """A figure of every role in every training: ``values[role] [K]``, and of repeats how the images move each."""

    values: dict[str, np.ndarray]
    moved: dict[str, list[Moved]]


def luck(task: Task, kind: Kind, trainings: Sequence[Training], *, margin: float) -> dict[str, Any]:
    """Figures and comparisons over several trainings, with intervals for the luck of training and of the images.

    Args:
        task: what the probabilities mean.
        kind: ``repeats`` (the same test images every time) or ``folds`` (a cut of the data for each).
        trainings: two or more. Roles that some of them lack are left out.
        margin: non-inferiority margin, 0 or more, in units of the selection metric.

    Returns:
        ``kind``; ``count`` (trainings); ``metric``; ``margin``; ``runs`` (per training the selection metric on test by
        role); ``figures`` (per role the metric and ``accuracy``: mean over trainings as ``value``, ``low``, ``high``);
        ``comparison`` (``student_vs_<role>``: what :func:`~stillroom.evaluation.comparison.judge` gives of the mean
        difference, and ``accuracy_difference``); ``exported`` (of repeats the training, from 1, whose student is best on
        validation; None of folds and where validation says nothing); ``statement``. None where not defined.

    Raises:
        UsageError: fewer than two trainings, none of a student, or repeats that were tested on different images.
    """
    if len(trainings) < 2:
        raise UsageError(f"The luck of training needs two trainings or more, got {len(trainings)}.")
    roles = [role for role in trainings[0].probabilities if all(role in one.probabilities for one in trainings)]
    if STUDENT not in roles:
        raise UsageError("The luck of training is measured on the student, and some training has none.")
    metric = task.selection_metric
    if kind == "repeats":
        samples, units = _repeats(task, trainings, roles, (metric, "accuracy"))
        spare = 0.0
    else:
        samples, units = _folds(task, trainings, roles, (metric, "accuracy"))
        spare = float(np.mean([len(one.ids) / one.train_images for one in trainings]))
    least = min(rarest(task, one.targets) for one in trainings)

    def interval(name: str, first: str, second: str | None) -> dict[str, float | None]:
        """Of a role's figure, or of the difference of two roles."""
        found, low, high = samples[name], *_BOUNDS[name]
        values = found.values[first] - (0 if second is None else found.values[second])
        bounds = (low, high) if second is None else (low - high, high - low)
        if kind == "repeats":
            own = found.moved[first]
            joint = (
                joint_figure(own, bounds) if second is None else joint_difference(own, found.moved[second], high - low)
            )
            return _figure(values, joint, bounds)
        ends = corrected_interval(values, spare)
        if not np.isnan(values).any() and np.ptp(values) < 1e-12 and (ends[0] is None or ends[0] == ends[1]):
            # As of one training: shares and differences that never vary leave doubt, the area of a constant answer does not.
            share = name == "accuracy"
            hidden = doubt(units if share else min(units, least)) if share or second is not None else 0.0
            ends = values.mean() - hidden, values.mean() + hidden
        return _figure(values, ends, bounds)

    comparison = {}
    for other in roles:
        if other != STUDENT:
            means = tuple(float(samples[metric].values[role].mean()) for role in (STUDENT, other))
            judged = judge(
                metric, (STUDENT, noun(other)), (means[0], means[1]), interval(metric, STUDENT, other), margin
            )
            judged["statement"] = f"{_over(kind, len(trainings))}: {judged['statement']}"
            comparison[f"{STUDENT}_vs_{other}"] = judged | {"accuracy_difference": interval("accuracy", STUDENT, other)}
    return {
        "kind": kind,
        "count": len(trainings),
        "metric": metric,
        "margin": margin,
        "runs": [{role: _number(samples[metric].values[role][k]) for role in roles} for k in range(len(trainings))],
        "figures": {role: {name: interval(name, role, None) for name in (metric, "accuracy")} for role in roles},
        "comparison": comparison,
        "exported": _best([one.validation.get(STUDENT, np.nan) for one in trainings]) if kind == "repeats" else None,
        "statement": _statement(kind, trainings, metric, samples[metric].values[STUDENT]),
    }


def corrected_interval(values: np.ndarray, spare: float) -> tuple[float | None, float | None]:
    """95 % interval of a mean over cuts of one data set, by Nadeau and Bengio's corrected resampled t.

    Args:
        values: ``[K]`` a figure (or difference) per cut.
        spare: test images per training image, ``n_test / n_train``.

    Returns:
        ``(None, None)`` with fewer than two cuts or where a value is not defined.
    """
    from scipy.stats import t

    if len(values) < 2 or np.isnan(values).any():
        return None, None
    spread = sqrt((1 / len(values) + spare) * float(values.var(ddof=1)))
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * spread
    return float(values.mean()) - half, float(values.mean()) + half


def _repeats(
    task: Task, trainings: Sequence[Training], roles: list[str], names: tuple[str, ...]
) -> tuple[dict[str, _Samples], int]:
    first = trainings[0]
    if any(not np.array_equal(one.ids, first.ids) for one in trainings):
        raise UsageError("Repeated trainings must be tested on the same images: these are not.")
    drawn = draw(len(first.ids), 0, 0, first.patients)
    moved: dict[str, list[dict[str, Moved]]] = {}
    for role in roles:
        found = moved[role] = []
        for one in trainings:
            # What is shared by all trainings, such as the teacher, is measured once.
            if found and np.array_equal(one.probabilities[role], first.probabilities[role]):
                found.append(found[0])
                continue
            measured = measure(task, one.probabilities[role], first.targets, drawn)
            found.append({name: measured.moved(name) for name in names})
    return {
        name: _Samples(
            {role: np.array([one[name].value for one in found]) for role, found in moved.items()},
            {role: [one[name] for one in found] for role, found in moved.items()},
        )
        for name in names
    }, drawn.units


def _folds(
    task: Task, trainings: Sequence[Training], roles: list[str], names: tuple[str, ...]
) -> tuple[dict[str, _Samples], int]:
    found = {
        role: [
            figures(
                task, np.asarray(one.probabilities[role], np.float64), one.targets, np.ones((1, len(one.ids)))
            ).overall
            for one in trainings
        ]
        for role in roles
    }
    samples = {
        name: _Samples({role: np.array([one[name][0] for one in each]) for role, each in found.items()}, {})
        for name in names
    }
    return samples, len(np.unique(np.concatenate([one.ids for one in trainings])))


def _figure(
    values: np.ndarray, ends: tuple[float | None, float | None], bounds: tuple[float, float]
) -> dict[str, float | None]:
    low, high = ends
    return {
        "value": _number(values.mean()),
        "low": None if low is None else max(bounds[0], float(low)),
        "high": None if high is None else min(bounds[1], float(high)),
    }


def _best(values: Sequence[float]) -> int | None:
    return None if np.isnan(values).all() else int(np.nanargmax(values)) + 1


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _over(kind: Kind, count: int) -> str:
    return f"Over {count} {'trainings' if kind == 'repeats' else 'cuts of the data'}"


def _statement(kind: Kind, trainings: Sequence[Training], metric: str, values: np.ndarray) -> str:
    noun_of = {"auc": "AUC", "quadratic_kappa": "quadratic kappa"}[metric]
    tested = len(np.unique(np.concatenate([one.ids for one in trainings])))
    how = (
        f"Everything that is trained was trained {len(trainings)} times on one split and tested on the same {tested} images"
        if kind == "repeats"
        else f"The data were cut {len(trainings)} times, with a training for each; {tested} different images were tested"
    )
    if np.isnan(values).any():
        return f"{how}. The student's {noun_of} is not defined in every one."
    return (
        f"{how}. The student's {noun_of} went from {values.min():.3f} to {values.max():.3f}. Intervals hold the luck of "
        "training and that of the images."
    )

"""The figures of a classifier, each with an interval.

The values and how far each image moves them come from :mod:`stillroom.evaluation.figures`, the intervals that follow from
:mod:`stillroom.evaluation.effective`. Only the calibration error is resampled: it has kinks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.errors import RunError, UsageError
from stillroom.evaluation.calibration_error import calibration_error
from stillroom.evaluation.decisions import composed, f1_of, jaccard, jaccard_slope
from stillroom.evaluation.effective import (
    FEWEST,
    Basis,
    Moved,
    seen,
    shares,
    span,
    unseen,
    unseen_in_mean,
    variance,
    worst_loss,
)
from stillroom.evaluation.figures import (
    CLASS_FIGURES,
    Averaged,
    Figures,
    Tally,
    centred,
    derivatives,
    figures,
    weighted,
)
from stillroom.evaluation.intervals import LEVEL, Resamples, draw
from stillroom.shown import counted
from stillroom.task import Task

__all__ = ["CLASS_FIGURES", "Figures", "Measured", "checked", "figures", "measure", "score", "score_of"]

NAMES = {
    "auc": "AUC",
    "f1": "F1",
    "mcc": "MCC",
    "ece": "ECE",
    "calibration_error": "calibration error",
    "brier": "Brier score",
    "nll": "log loss",
}
FEW_GROUPS = 20


@dataclass(frozen=True)
class Measured:
    """One classifier on one set of images: all figures, and how they move with the images (or patients).

    Attributes:
        task: what the probabilities mean.
        probabilities: ``[N, K]`` float64.
        value: figures under the weighting of ones, so ``R`` is 1.
        centre: the same, but for the average precision, which is biased upward: that of the images without themselves.
        moves: name of an overall figure to ``[U]`` how far each image, or patient where they are known, moves it.
        variances: of the figures, in the shape of ``value``.
        moved_by: how many images or patients move each, in the same shape; see :func:`~stillroom.evaluation.effective.seen`.
        averaged: over which classes the means are.
        images: on how many images each figure rests.
        units: the same in patients where they are known.
        worst: the largest log loss that one of the images could have cost.
        sizes: ``[K]`` share of the images that are of each class.
    """

    task: Task
    probabilities: np.ndarray
    value: Figures
    centre: Figures
    moves: dict[str, np.ndarray]
    variances: Figures
    moved_by: Figures
    averaged: Averaged
    images: Basis
    units: Basis
    worst: float
    sizes: np.ndarray

    def moved(self, name: str) -> Moved:
        """An overall figure with all that its interval is made of."""
        return Moved(
            float(self.value.overall[name][0]), self.moves[name], self.images.overall[name], self.units.overall[name]
        )


def measure(task: Task, probabilities: np.ndarray, targets: np.ndarray, drawn: Resamples) -> Measured:
    """Measure ``[N, K]`` probabilities once, for their own figures and every comparison; raises what :func:`score` does."""
    probabilities = checked(task, probabilities, targets)
    tally = Tally.of(task, probabilities, targets)
    value = weighted(tally, np.ones((1, len(probabilities))))
    slopes = derivatives(tally, value)
    moves = {name: by_unit(slope, drawn.members) for name, slope in slopes.overall.items()}
    columns = {
        name: [(by_unit(column, drawn.members), column) for column in slope.T]
        for name, slope in slopes.per_class.items()
    }
    variances = Figures(
        {name: np.array([variance(moves[name], slope)]) for name, slope in slopes.overall.items()},
        {name: np.array([[variance(*pair) for pair in pairs]]) for name, pairs in columns.items()},
    )
    moved_by = Figures(
        {name: np.array([seen(of)]) for name, of in moves.items()},
        {name: np.array([[seen(of) for of, _ in pairs]]) for name, pairs in columns.items()},
    )
    images = Basis.of(tally)
    return Measured(
        task,
        probabilities,
        value,
        centred(tally, value),
        moves,
        variances,
        moved_by,
        Averaged.of(task, tally.truth),
        images,
        images if drawn.members is None else Basis.of(tally, drawn.members),
        worst_loss(task, probabilities, targets),
        tally.truth.mean(axis=0),
    )


def score(
    task: Task,
    probabilities: np.ndarray,
    targets: np.ndarray,
    *,
    patients: np.ndarray | None = None,
    level: float = 0.95,
) -> dict[str, Any]:
    """Every figure of a classifier on one split, ready for JSON.

    Means are taken over ``task.scored``: all classes, or the positive class of a binary task. AUC and
    accuracy are those of MedMNIST's evaluator. Balanced accuracy is the mean sensitivity over classes
    (multi-label: the mean of sensitivity and specificity over labels); MCC is the multi-class generalisation
    (multi-label: the mean over labels), and not defined where always the same is answered (0 / 0).

    Intervals are those of shares of an effective number of images (:mod:`stillroom.evaluation.effective`), of patients
    where they are known (of the log loss, of the largest that one of the images could have cost), and of what is made of
    several shares, those that they have (:mod:`stillroom.evaluation.decisions`); inversion of a test for the
    calibration error (:func:`~stillroom.evaluation.calibration_error.calibration_error`), and none for the usual one over
    bins (``ece``).

    Args:
        probabilities: ``[N, K]`` in [0, 1].
        targets: ``[N]`` class indices, or ``[N, K]`` of 0/1 for multi-label.
        patients: ``[N]`` str; whole patients then count. ``""`` where unknown.
        level: of the intervals, in (0, 1).

    Returns:
        Each overall figure as ``{"value", "low", "high"}``; ``per_class`` with the same per class, its ``support`` and
        ``patients`` (numbers; the latter None where patients are not known); ``positive_class`` (of a binary task, else
        None: means over classes); ``images``, ``patients`` (number, or None), ``interval`` (how the intervals were made)
        and ``notes``. What is not defined is None, and a note says why.

    Raises:
        UsageError: no images, or shapes that do not fit together.
        RunError: a probability that is not a number.
    """
    drawn = draw(len(targets), 0, 0, patients)
    return score_of(task, measure(task, probabilities, targets, drawn), targets, drawn, level=level)


def score_of(
    task: Task, measured: Measured, targets: np.ndarray, drawn: Resamples, *, level: float = 0.95
) -> dict[str, Any]:
    """:func:`score` of what was measured already."""
    probabilities, groups, value = measured.probabilities, drawn.groups, measured.value
    ends = interval_ends(measured, level)
    result: dict[str, Any] = {name: _figure(value.overall[name][0], ends.overall[name]) for name in ends.overall}
    # The usual error over bins has no honest interval: chance adds to it.
    result["ece"] = _figure(value.overall["ece"][0], (None, None))
    result["calibration_error"] = calibration_error(task, probabilities, targets, groups)["error"]
    support = task.one_hot(targets).sum(axis=0)
    of_patients = measured.units.per_class["sensitivity"]
    result["per_class"] = {
        name: {figure: _figure(value.per_class[figure][0, k], ends.per_class[figure][k]) for figure in CLASS_FIGURES}
        | {"support": int(support[k]), "patients": None if groups is None else int(of_patients[k])}
        for k, name in enumerate(task.classes)
    }
    result["positive_class"] = task.positive_class
    result["images"] = len(probabilities)
    result["patients"] = None if groups is None else drawn.units
    result["interval"] = {
        "method": "share of an effective number of images, exact less a quarter; calibration error: inverted test",
        "level": level,
        "unit": "image" if groups is None else "patient",
    }
    unit = f"{result['interval']['unit']}s"
    lone = [name for name, number in zip(task.classes, of_patients, strict=True) if 0 < number < FEWEST]
    result["notes"] = [
        *_class_notes(task, probabilities, targets),
        *(
            f"Fewer than two {unit} are of class {name}: its AUC, sensitivity and the like have no interval."
            for name in lone
        ),
        *_figure_notes(result, list(value.overall)),
        *_patient_notes(groups, result["patients"]),
    ]
    return result


def by_unit(slopes: np.ndarray, members: np.ndarray | None) -> np.ndarray:
    """``[N]`` moves of single images to those of whole patients, by ``[N]`` whole numbers from 0; None for no patients."""
    return slopes if members is None else np.bincount(members, weights=slopes)


def checked(task: Task, probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The probabilities as float64 ``[N, K]``, or an error that says what does not fit."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if len(probabilities) == 0:
        raise UsageError("There is no image to evaluate: the split is empty.")
    expected = (len(targets), len(task.classes))
    if probabilities.shape != expected:
        raise UsageError(
            f"Probabilities of shape {list(probabilities.shape)} do not fit {expected[0]} targets "
            f"and {expected[1]} classes."
        )
    if not np.isfinite(probabilities).all():
        row = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise RunError(f"The model's probabilities of image {row} (counted from 0) are not finite: it diverged.")
    return probabilities


def interval_ends(measured: Measured, level: float = LEVEL) -> Figures:
    """Ends of every figure but the calibration error: overall ``[2]``, per class ``[K, 2]``; NaN for none."""
    overall = list(measured.moves)
    classes = len(measured.task.classes)

    def row(part: Figures | Basis) -> np.ndarray:
        of_classes = [np.ravel(part.per_class[name]) for name in CLASS_FIGURES]
        return np.concatenate([*(np.ravel(part.overall[name]) for name in overall), *of_classes])

    bounds = [span(measured.task, name, measured.worst) for name in overall] + [(0.0, 1.0)] * (
        len(CLASS_FIGURES) * classes
    )
    start, end = np.array(bounds).T
    moved_by, images, units = row(measured.moved_by), row(measured.images), row(measured.units)
    # Losses that are all alike are moved by nothing, and yet the next may be another.
    losses = [overall.index(name) for name in ("brier", "nll")]
    moved_by[losses] = np.maximum(moved_by[losses], 1e-9)
    added = unseen(moved_by, images, units, level)
    of_class = [of[len(overall) :].reshape(len(CLASS_FIGURES), classes) for of in added]
    for place, name in enumerate(overall):
        if parts := measured.averaged.parts(measured.task, name):
            picked = [np.concatenate([of[CLASS_FIGURES.index(part)][over] for part, over in parts]) for of in of_class]
            total = measured.units.overall["accuracy"]
            added[0][place], added[1][place] = unseen_in_mean(picked[0], picked[1], total)
    centre = (row(measured.centre) - start) / (end - start)
    # What is centred away is not known exactly either.
    varying = (row(measured.variances) + (row(measured.value) - row(measured.centre)) ** 2) / (end - start) ** 2
    f1 = len(overall) + CLASS_FIGURES.index("f1") * classes + np.arange(classes)
    varying[f1], centre[f1] = varying[f1] * jaccard_slope(centre[f1]) ** 2, jaccard(centre[f1])
    found = np.array(shares(centre, varying, moved_by, images, units, level, added))
    found[:, f1] = f1_of(found[:, f1])
    ends = np.stack([start + (end - start) * each for each in found], axis=1)
    value = row(measured.value)
    ends = np.stack([np.minimum(ends[:, 0], value), np.maximum(ends[:, 1], value)], axis=1)
    per_class = dict(zip(CLASS_FIGURES, ends[len(overall) :].reshape(len(CLASS_FIGURES), classes, 2), strict=True))
    of_all = dict(zip(overall, ends, strict=False))
    kappa = "quadratic_kappa"
    # Always the same grade gives 0 whatever is true, and nothing is known of answers that were never given.
    if kappa in of_all and measured.moved_by.overall[kappa][0] == 0 and measured.value.overall[kappa][0] < 1:
        of_all[kappa] = np.full(2, np.nan)
    patients = len(measured.moves["accuracy"]) < len(measured.probabilities)
    made = composed(measured.task, measured.averaged, measured.sizes, measured.value, per_class, of_all, patients)
    return Figures(of_all | made, per_class)


def _figure(value: float, ends: Any) -> dict[str, float | None]:
    low, high = (None if end is None or np.isnan(end) or np.isnan(value) else float(end) for end in ends)
    return {"value": None if np.isnan(value) else float(value), "low": low, "high": high}


def _class_notes(task: Task, probabilities: np.ndarray, targets: np.ndarray) -> list[str]:
    truth, predicted = task.one_hot(targets), task.one_hot(task.decide(probabilities))
    notes = []
    for k, name in enumerate(task.classes):
        support = int(truth[:, k].sum())
        if support == 0:
            notes.append(f"No image is of class {name}: its figures are not defined and every mean leaves it out.")
        elif support == len(truth):
            notes.append(f"Every image is of class {name}: its AUC, average precision and specificity are not defined.")
        means = k in task.scored and len(task.scored) > 1
        if task.exclusive and predicted[:, k].all():
            kappa = ", and quadratic kappa is 0 whatever is true" if task.kind == "ordinal" else ""
            notes.append(f"The network answers {name} for every image: MCC is not defined (0 / 0){kappa}.")
        elif predicted[:, k].all() and 0 < support < len(truth):
            notes.append(f"Every image was predicted as {name}: MCC is not defined of it (0 / 0), nor is the mean.")
        if support and not predicted[:, k].any():
            lost = ["precision"] if task.exclusive or support == len(truth) else ["precision", "MCC"]
            verb = "is" if len(lost) == 1 else "are"
            mean = f", and so {verb} the mean {' and '.join(lost)}" if means else ""
            notes.append(f"No image was predicted as {name}: its {' and '.join(lost)} {verb} not defined{mean}.")
    return notes


def _figure_notes(result: dict[str, Any], names: list[str]) -> list[str]:
    notes = []
    undefined = [name for name in names if result[name]["value"] is None]
    if undefined:
        notes.append(f"Not defined on these images: {_listed(undefined)}.")
    defined = [name for name in names if name not in undefined]
    missing = [name for name in defined if result[name]["low"] is None and name not in ("ece", "quadratic_kappa")]
    if missing:
        unit = f"{result['interval']['unit']}s"
        notes.append(f"Resting on fewer than two {unit} (of a class), hence without an interval: {_listed(missing)}.")
    flat = [name for name in defined if name not in missing and _flat(result[name])]
    if flat:
        notes.append(f"The interval has no width, because no image moves the figure: {_listed(flat)}.")
    return notes


def _flat(figure: dict[str, float | None]) -> bool:
    return figure["low"] is not None and figure["low"] == figure["high"]


def _listed(names: list[str]) -> str:
    return ", ".join(NAMES.get(name, name.replace("_", " ")) for name in names)


def _patient_notes(groups: np.ndarray | None, count: int | None) -> list[str]:
    if groups is None or count is None:
        return []
    notes = []
    unknown = int((np.asarray(groups) == "").sum())
    if unknown:
        notes.append(
            f"{counted(unknown, 'image')} of unknown patient {'counts' if unknown == 1 else 'count'} as a patient each."
        )
    if count < FEW_GROUPS:
        notes.append(f"The intervals rest on {counted(count, 'patient')} only, hence their width.")
    return notes

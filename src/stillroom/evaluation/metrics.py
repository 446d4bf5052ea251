"""The figures of a classifier, each with an interval.

Every figure is a function of weighted sums over images. :func:`figures` computes all of them for many
weightings at once; the value is the weighting of ones and the interval comes from bootstrap weightings, so
both are the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.errors import RunError, UsageError
from stillroom.evaluation.calibration import calibration_gaps
from stillroom.evaluation.intervals import (
    Ranking,
    Resamples,
    blocks,
    divide,
    draw,
    group_indices,
    percentile,
    pivot,
    wilson,
)
from stillroom.task import Task

# One-against-rest figures, which exist per class and as a mean over the task's scored classes.
CLASS_FIGURES = ("auc", "sensitivity", "specificity", "precision", "f1", "average_precision")
NEED_NEGATIVES = ("auc", "specificity", "average_precision")
# Class figures that are shares of images, for which Wilson's interval exists.
SHARES = ("sensitivity", "specificity", "precision")
NAMES = {"auc": "AUC", "f1": "F1", "mcc": "MCC", "ece": "ECE", "brier": "Brier score", "nll": "log loss"}
FEW_GROUPS = 20


@dataclass(frozen=True)
class Figures:
    """Figures under ``R`` weightings; NaN where one is not defined.

    Attributes:
        overall: name to ``[R]``.
        per_class: name to ``[R, K]``.
    """

    overall: dict[str, np.ndarray]
    per_class: dict[str, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """One classifier on one set of images: all figures, and how they move when the images are drawn again.

    Attributes:
        probabilities: ``[N, K]`` float64.
        value: figures under the weighting of ones, so ``R`` is 1.
        spread: figures on every resample.
    """

    probabilities: np.ndarray
    value: Figures
    spread: Figures


def measure(task: Task, probabilities: np.ndarray, targets: np.ndarray, drawn: Resamples) -> Measured:
    """Measure ``[N, K]`` probabilities once, for their own figures and every comparison; raises what :func:`score` does."""
    probabilities = checked(task, probabilities, targets)
    return Measured(
        probabilities,
        figures(task, probabilities, targets, np.ones((1, len(probabilities)))),
        figures(task, probabilities, targets, drawn.weights),
    )


def score(
    task: Task,
    probabilities: np.ndarray,
    targets: np.ndarray,
    *,
    patients: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Every figure of a classifier on one split, ready for JSON.

    Means are taken over ``task.scored``: all classes, or the positive class of a binary task. AUC and
    accuracy are those of MedMNIST's evaluator. Balanced accuracy is the mean sensitivity over classes
    (multi-label: the mean of sensitivity and specificity over labels); MCC is the multi-class generalisation
    (multi-label: the mean over labels).

    Intervals are bootstrap intervals. Where every resample agrees on a share (accuracy of exclusive classes;
    sensitivity, specificity and precision of one class), Wilson's interval stands instead, over the images or
    patients that the share is of.

    Args:
        probabilities: ``[N, K]`` in [0, 1].
        targets: ``[N]`` class indices, or ``[N, K]`` of 0/1 for multi-label.
        patients: ``[N]`` str; whole patients are then resampled. ``""`` where unknown.
        resamples: bootstrap resamples; 0 gives no intervals.
        seed: of the resamples.
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
    drawn = draw(len(targets), resamples, seed, patients)
    return score_of(task, measure(task, probabilities, targets, drawn), targets, drawn, level=level)


def score_of(
    task: Task, measured: Measured, targets: np.ndarray, drawn: Resamples, *, level: float = 0.95
) -> dict[str, Any]:
    """:func:`score` of what was measured on these resamples already."""
    probabilities, groups, value, spread = measured.probabilities, drawn.groups, measured.value, measured.spread
    bases = _bases(task, probabilities, targets, groups)
    result: dict[str, Any] = {
        name: _figure(name, value.overall[name][0], spread.overall[name], level) for name in value.overall
    }
    support = task.one_hot(targets).sum(axis=0)
    result["per_class"] = {
        name: {
            figure: _figure(figure, value.per_class[figure][0, k], spread.per_class[figure][:, k], level)
            for figure in CLASS_FIGURES
        }
        | {"support": int(support[k]), "patients": None if groups is None else int(bases["sensitivity"][k])}
        for k, name in enumerate(task.classes)
    }
    result["positive_class"] = task.positive_class
    result["images"] = len(probabilities)
    result["patients"] = None if groups is None else drawn.units
    result["interval"] = {
        "method": "percentile bootstrap (calibration error: pivot bootstrap; shares on which all resamples agree: "
        "Wilson)",
        "level": level,
        "resamples": len(drawn.weights),
        "unit": "image" if groups is None else "patient",
    }
    widened = _widen(task, result, bases, level)
    result["notes"] = [
        *_class_notes(task, probabilities, targets),
        *_figure_notes(result, list(value.overall)),
        *widened,
        *_patient_notes(groups, result["patients"]),
    ]
    return result


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


def figures(task: Task, probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Figures:
    """Every figure under every weighting.

    Args:
        probabilities: ``[N, K]`` float64.
        weights: ``[R, N]``, 0 or more, such as :func:`~stillroom.evaluation.intervals.resample_weights`
            draws.
    """
    truth = task.one_hot(targets).astype(np.float64)
    predicted = task.one_hot(task.decide(probabilities)).astype(np.float64)
    gaps, pairs = calibration_gaps(task, probabilities, targets)
    grades = np.arange(truth.shape[1], dtype=np.float64)
    columns = {
        "positive": truth,
        "predicted": predicted,
        "hit": truth * predicted,
        "gaps": gaps / pairs,
        "correct": task.correct(probabilities, targets)[:, None],
        "brier": task.brier(probabilities, targets)[:, None],
        "nll": task.log_loss(probabilities, targets)[:, None],
        "squared_distance": ((truth @ grades - predicted @ grades) ** 2)[:, None],
    }
    stacked = np.concatenate(list(columns.values()), axis=1)
    edges = np.cumsum([column.shape[1] for column in columns.values()])[:-1]
    rankings = [Ranking.of(probabilities[:, k], truth[:, k]) for k in range(truth.shape[1])]

    done = []
    for block in blocks(weights):
        sums = dict(zip(columns, np.split(block @ stacked, edges, axis=1), strict=True))
        ranked = [ranking.auc_and_ap(block) for ranking in rankings]
        auc, ap = (np.stack(column, axis=1) for column in zip(*ranked, strict=True))
        per_class = _per_class(sums, block.sum(axis=1)) | {"auc": auc, "average_precision": ap}
        done.append(Figures(_overall(task, sums, block.sum(axis=1), per_class, truth), per_class))
    return Figures(
        {name: np.concatenate([part.overall[name] for part in done]) for name in done[0].overall},
        {name: np.concatenate([part.per_class[name] for part in done]) for name in CLASS_FIGURES},
    )


def _per_class(sums: dict[str, np.ndarray], total: np.ndarray) -> dict[str, np.ndarray]:
    """One-against-rest figures of decisions, ``[R, K]``; not defined where the class is absent."""
    positive, predicted, hit = sums["positive"], sums["predicted"], sums["hit"]
    present = positive > 0
    rejected = total[:, None] - predicted - (positive - hit)
    return {
        "sensitivity": divide(hit, positive),
        "specificity": divide(rejected, np.where(present, total[:, None] - positive, 0)),
        "precision": divide(hit, np.where(present, predicted, 0)),
        "f1": divide(2 * hit, np.where(present, positive + predicted, 0)),
    }


def _overall(
    task: Task,
    sums: dict[str, np.ndarray],
    total: np.ndarray,
    per_class: dict[str, np.ndarray],
    truth: np.ndarray,
) -> dict[str, np.ndarray]:
    """Figures of the whole, ``[R]`` each. Classes absent from ``[N, K]`` truth itself take no part in the
    means; a class that is merely missed by a resample makes that resample's mean not defined."""
    support = truth.sum(axis=0)
    present = np.flatnonzero(support > 0)
    scored = np.intersect1d(task.scored, present)
    contrasted = scored[support[scored] < len(truth)]
    overall = {
        name: _mean(per_class[name][:, contrasted if name in NEED_NEGATIVES else scored]) for name in CLASS_FIGURES
    }
    positive, predicted, hit = sums["positive"], sums["predicted"], sums["hit"]
    if task.exclusive:
        overall["balanced_accuracy"] = _mean(per_class["sensitivity"][:, present])
        overall["mcc"] = _mcc(hit.sum(axis=1), predicted, positive, total)
    else:
        overall["balanced_accuracy"] = _mean((per_class["sensitivity"] + per_class["specificity"])[:, contrasted] / 2)
        whole = total[:, None]
        right = whole - predicted - positive + 2 * hit
        two_sided = [np.stack([counts, whole - counts], axis=2) for counts in (predicted, positive)]
        overall["mcc"] = _mean(_mcc(right, two_sided[0], two_sided[1], whole)[:, contrasted])
    for name in ("brier", "nll"):
        overall[name] = divide(sums[name][:, 0], total)
    overall["accuracy"] = divide(sums["correct"][:, 0], total)
    overall["ece"] = divide(np.abs(sums["gaps"]).sum(axis=1), total)
    if task.selection_metric == "quadratic_kappa":
        overall["quadratic_kappa"] = _quadratic_kappa(sums, total)
    return overall


def _mcc(right: np.ndarray, predicted: np.ndarray, positive: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Matthews' coefficient over the last axis (classes) of the margins, in [-1, 1].

    A constant prediction scores 0, the limit of nearly constant ones; constant targets leave it not defined.
    """
    shared = right * total - (predicted * positive).sum(axis=-1)
    varied = [total**2 - (margin**2).sum(axis=-1) for margin in (predicted, positive)]
    coefficient = divide(shared, np.sqrt(varied[0] * varied[1]))
    return np.where((varied[0] == 0) & (varied[1] > 0), 0.0, coefficient)


def _quadratic_kappa(sums: dict[str, np.ndarray], total: np.ndarray) -> np.ndarray:
    """Cohen's kappa with squared distances between grades, from margins alone; not defined where one grade
    only is true."""
    grades = np.arange(sums["positive"].shape[1])
    first, second = sums["positive"], sums["predicted"]
    expected = first @ grades**2 + second @ grades**2 - 2 * divide((first @ grades) * (second @ grades), total)
    graded = (first > 0).sum(axis=1) > 1
    return 1 - divide(sums["squared_distance"][:, 0], np.where(graded, expected, 0))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over classes, ``[R, C]`` to ``[R]``, NaN for no class."""
    return values.mean(axis=1) if values.shape[1] else np.full(len(values), np.nan)


def _figure(name: str, value: float, resampled: np.ndarray, level: float) -> dict[str, float | None]:
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    low, high = pivot(float(value), resampled, level) if name == "ece" else percentile(resampled, level)
    return {"value": float(value), "low": low, "high": high}


def _class_notes(task: Task, probabilities: np.ndarray, targets: np.ndarray) -> list[str]:
    truth, predicted = task.one_hot(targets), task.one_hot(task.decide(probabilities))
    notes = []
    for k, name in enumerate(task.classes):
        support = int(truth[:, k].sum())
        if support == 0:
            notes.append(f"No image is of class {name}: its figures are not defined and every mean leaves it out.")
        elif support == len(truth):
            notes.append(f"Every image is of class {name}: its AUC, average precision and specificity are not defined.")
        if support and not predicted[:, k].any():
            mean = ", and so is the mean precision" if k in task.scored and len(task.scored) > 1 else ""
            notes.append(f"No image was predicted as {name}: its precision is not defined{mean}.")
    return notes


def _figure_notes(result: dict[str, Any], names: list[str]) -> list[str]:
    notes = []
    undefined = [name for name in names if result[name]["value"] is None]
    if undefined:
        notes.append(f"Not defined on these images: {_listed(undefined)}.")
    if result["interval"]["resamples"] == 0:
        return [*notes, "No resamples were asked for, so no figure has an interval."]
    defined = [name for name in names if name not in undefined]
    missing = [name for name in defined if result[name]["low"] is None]
    if missing:
        notes.append(f"Not defined in more than half of the resamples, hence no interval: {_listed(missing)}.")
    flat = [name for name in defined if name not in missing and _flat(result[name])]
    if flat:
        notes.append(f"The interval has no width, because every resample gives the same: {_listed(flat)}.")
    return notes


def _bases(
    task: Task, probabilities: np.ndarray, targets: np.ndarray, groups: np.ndarray | None
) -> dict[str, np.ndarray]:
    """How many images (or patients) each share is of: accuracy ``[1]``, shares of a class ``[K]``."""
    truth = task.one_hot(targets).astype(bool)
    chosen = {
        "accuracy": np.ones((len(truth), 1), dtype=bool),
        "sensitivity": truth,
        "specificity": ~truth,
        "precision": task.one_hot(task.decide(probabilities)).astype(bool),
    }
    units = np.arange(len(truth)) if groups is None else group_indices(groups)
    return {name: np.array([len(np.unique(units[mask])) for mask in masks.T]) for name, masks in chosen.items()}


def _widen(task: Task, result: dict[str, Any], bases: dict[str, np.ndarray], level: float) -> list[str]:
    """Put Wilson's interval where every resample agrees on a share, and say where."""
    shares = {"accuracy": int(bases["accuracy"][0])} if task.exclusive else {}
    if len(task.scored) == 1:
        shares |= {name: int(bases[name][task.scored[0]]) for name in SHARES}
    unit = "images" if result["patients"] is None else "patients"
    notes = [
        f"Every resample gives the same {_listed([name])}: its interval is Wilson's, of a share of {count} {unit}."
        for name, count in shares.items()
        if _wilson_if_flat(result[name], count, level)
    ]
    classes = {
        name: sum(
            _wilson_if_flat(result["per_class"][label][name], int(count), level)
            for label, count in zip(task.classes, bases[name], strict=True)
        )
        for name in SHARES
    }
    listed = ", ".join(f"{name} ({count} of {len(task.classes)})" for name, count in classes.items() if count)
    # Of a binary task the overall figures are those of the classes, and have been named.
    if listed and len(task.scored) > 1:
        notes.append(f"Class by class, Wilson's interval stands where every resample agrees: {listed}.")
    return notes


def _wilson_if_flat(figure: dict[str, float | None], count: int, level: float) -> bool:
    value = figure["value"]
    if value is None or not _flat(figure):
        return False
    figure["low"], figure["high"] = wilson(value * count, count, level)
    return True


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
        notes.append(f"{unknown} images of unknown patient are resampled as a patient each.")
    if count < FEW_GROUPS:
        notes.append(f"The intervals rest on {count} patients only and may be too narrow.")
    return notes

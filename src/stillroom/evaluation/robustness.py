"""How well networks bear corrupted images: accuracy, calibration and error by corruption and severity.

Errors are MedMNIST-C's (Di Salvo et al., 2024): one minus balanced accuracy, also as balanced error (BE) and relative
balanced error (rBE), which divide by the error of a reference network. MedMNIST-C's reference is an AlexNet; here it is
one of the networks at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from stillroom.errors import UsageError
from stillroom.evaluation.assess import STUDENT
from stillroom.evaluation.calibration_error import calibration_error
from stillroom.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stillroom.evaluation.estimates import Estimate, complement, estimate, number_of, share
from stillroom.evaluation.intervals import divide, percentile, wilson
from stillroom.evaluation.judge import Judge
from stillroom.evaluation.metrics import checked, figures, score
from stillroom.progress import Advance
from stillroom.task import Task

Ask = Callable[[Tensor], np.ndarray]
"""Images ``[B, C, S, S]`` in [0, 1] to logits ``[B, K]``."""

PASSES = 1 + len(CORRUPTIONS) * len(SEVERITIES)
"""How often each image is shown to each network: as it is, and once per corruption and severity."""

ALEXNET = {
    "pathmnist": (0.088, 0.277), "bloodmnist": (0.018, 0.113), "dermamnist": (0.399, 0.615),
    "retinamnist": (0.558, 0.649), "tissuemnist": (0.392, 0.538), "octmnist": (0.202, 0.369),
    "breastmnist": (0.145, 0.299), "chestmnist": (0.284, 0.368), "pneumoniamnist": (0.101, 0.265),
    "organamnist": (0.050, 0.269), "organcmnist": (0.076, 0.284), "organsmnist": (0.243, 0.404),
}  # fmt: skip
"""MedMNIST-C's AlexNet by data set: error on clean images, and mean error on corrupted ones."""

SLIGHT = 0.01
"""What the reference's error, or its rise, must surely exceed to be divided by: the low end of its 95 % interval must. Less
would make a ratio large without much having happened."""


def robustness(
    task: Task,
    asks: Mapping[str, Ask],
    temperatures: Mapping[str, float],
    batches: Callable[[np.ndarray], Tensor],
    rows: np.ndarray,
    targets: np.ndarray,
    *,
    patients: np.ndarray | None,
    resamples: int,
    seed: int,
    reference: str | None,
    data_name: str,
    batch_size: int = 128,
    advance: Advance | None = None,
) -> dict[str, Any]:
    """Show every network the same images under every corruption and severity.

    The error of a network is one minus balanced accuracy (multi-label: the mean over labels). For a corruption ``c``, let
    ``e_c`` be the network's error, a mean over severities, and ``r_c`` the reference's. Then BE is the mean over ``c`` of
    ``e_c / r_c``, and rBE the mean of ``(e_c - e_clean) / (r_c - r_clean)``. Corruptions whose denominator is not surely
    above :data:`SLIGHT` are left out of the mean; where these are more than half there is no mean of ratios. The difference
    of the rises ``e_c - e_clean`` is always given.

    All networks and corruptions are judged on the same resamples, so the intervals of means and differences allow for
    what makes an image hard for all. They are bootstrap intervals; accuracies' are
    those of shares (:func:`stillroom.evaluation.effective.shares`), with the variance of the resamples.

    Args:
        asks: role to network.
        temperatures: role to the temperature that was fitted on clean validation images.
        batches: ``[b]`` row numbers to images ``[b, C, S, S]`` float in [0, 1].
        rows: ``[n]`` row numbers of the test images.
        targets: of those rows, in the task's form.
        patients: ``[n]`` str; whole patients are then resampled. ``""`` where unknown.
        resamples: bootstrap resamples; 0 gives no intervals.
        seed: of the corruptions and of the resamples.
        reference: the role that BE and rBE divide by; None leaves both out.
        data_name: where it is a MedMNIST set, MedMNIST-C's AlexNet is quoted.
        batch_size: images at a time.
        advance: called with the number of images after each batch, ``n`` times :data:`PASSES` in all.

    Returns:
        Plain JSON. An estimate is ``{"value", "low", "high"}``; None stands for what is not defined.

        - ``images``, ``severities``, ``seed``, ``metric`` (the task's selection metric), ``reference``.
        - ``families``: corruption to family.
        - ``clean``: role to the estimates ``accuracy``, ``balanced_error``, ``ece`` and the metric.
        - ``corruptions``: corruption to role to ``mean_accuracy`` (an estimate), ``accuracy`` (one by severity), and
          ``balanced_error``, ``ece`` and the metric (a value by severity).
        - ``by_severity``: role to ``accuracy``, ``ece`` and ``calibration_error``, six estimates each: clean, then means over
          corruptions; the calibration error is that of the answers under all corruptions together, and ``ece`` has no
          interval (:mod:`~stillroom.evaluation.calibration_error`).
        - ``summary``: role to the estimates ``mean_accuracy``, ``mean_error``, ``rise`` (of the error, a mean over
          corruptions), ``rise_over_reference`` (that minus the reference's), ``be`` and ``rbe``.
        - ``difference``: every other role to the student's mean accuracy minus that role's.
        - ``published``: MedMNIST-C's AlexNet and each role's mean error as a ratio to its own, or None.
        - ``notes``: sentences.

    Raises:
        UsageError: no images, or a reference that is none of the networks.
        RunError: a network's answer is not a number.
    """
    if reference is not None and reference not in asks:
        raise UsageError(f"The reference {reference!r} is none of the networks: {', '.join(asks)}.")
    metric = task.selection_metric
    judge = Judge.of(task, targets, patients, resamples, seed)
    clean: dict[str, dict[str, Any]] = {}
    judged: dict[str, list[np.ndarray]] = {role: [] for role in asks}
    stated: dict[str, list[np.ndarray]] = {role: [] for role in asks}
    selection: dict[str, list[float]] = {role: [] for role in asks}
    for name, logits in _answers(asks, batches, rows, seed, batch_size, advance):
        for role, answers in logits.items():
            probabilities = checked(task, task.probabilities(answers, temperatures[role]), targets)
            judged[role].append(judge(probabilities))
            stated[role].append(probabilities)
            if name:
                overall = figures(task, probabilities, targets, np.ones((1, len(targets)))).overall
                selection[role].append(float(overall[metric][0]))
            else:
                found = score(task, probabilities, targets, patients=patients)
                clean[role] = {
                    "accuracy": found["accuracy"],
                    "balanced_error": complement(found["balanced_accuracy"]),
                    "ece": found["ece"],
                    metric: found[metric],
                }
    sheets = {role: _Sheet.of(judged[role], selection[role], (len(rows), judge.units)) for role in asks}
    against = None if reference is None else sheets[reference]
    return {
        "images": len(rows),
        "severities": list(SEVERITIES),
        "seed": seed,
        "metric": metric,
        "reference": reference,
        "families": {corruption.name: corruption.family for corruption in CORRUPTIONS},
        "clean": clean,
        "corruptions": {
            corruption.name: {role: sheet.corruption(number, metric) for role, sheet in sheets.items()}
            for number, corruption in enumerate(CORRUPTIONS)
        },
        "by_severity": {
            role: sheet.by_severity() | {"calibration_error": _calibration(task, stated[role], targets, patients, seed)}
            for role, sheet in sheets.items()
        },
        "summary": {role: sheet.summary(against) for role, sheet in sheets.items()},
        "difference": {
            other: _difference(sheets[STUDENT], sheet)
            for other, sheet in sheets.items()
            if STUDENT in sheets and other != STUDENT
        },
        "published": _published(data_name, sheets),
        "notes": _notes(reference, against, resamples),
    }


def _calibration(
    task: Task, stated: list[np.ndarray], targets: np.ndarray, patients: np.ndarray | None, seed: int
) -> list[Estimate]:
    """Clean and by severity: of an image's answers under all corruptions together, which depend on each other.

    Args:
        stated: ``[n, K]`` probabilities of the clean images, then by corruption and severity.
    """
    images = np.arange(len(targets)).astype(str) if patients is None else np.asarray(patients)
    images = np.where(images == "", np.char.add("image ", np.arange(len(targets)).astype(str)), images)
    found = [calibration_error(task, stated[0], targets, patients, seed=seed)["error"]]
    for severity in range(len(SEVERITIES)):
        answers = stated[1 + severity :: len(SEVERITIES)]
        together = np.concatenate(answers), np.concatenate([targets] * len(answers)), np.tile(images, len(answers))
        found.append(calibration_error(task, *together, seed=seed)["error"])
    return found


def _answers(
    asks: Mapping[str, Ask],
    batches: Callable[[np.ndarray], Tensor],
    rows: np.ndarray,
    seed: int,
    batch_size: int,
    advance: Advance | None,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Role to ``[n, K]`` logits: of the clean images (named ``""``), then by corruption and severity."""
    for name, severity in [("", 0), *((corruption.name, level) for corruption in CORRUPTIONS for level in SEVERITIES)]:
        parts: dict[str, list[np.ndarray]] = {role: [] for role in asks}
        for start in range(0, len(rows), batch_size):
            chunk = rows[start : start + batch_size]
            images = batches(chunk)
            if name:
                images = corrupt(images, name, severity, rows=chunk, seed=seed)
            for role, ask in asks.items():
                parts[role].append(ask(images))
            if advance:
                advance(len(chunk))
        yield name, {role: np.concatenate(answers) for role, answers in parts.items()}


@dataclass(frozen=True)
class _Sheet:
    """One network's figures; the last axis is the judge's ``1 + R`` weightings.

    Attributes:
        clean: ``[3, 1 + R]`` accuracy, balanced error and calibration error.
        corrupted: ``[Q, 5, 3, 1 + R]`` by corruption and severity.
        selection: ``[Q, 5]`` the task's selection metric.
        units: number of images, and of images or patients that were resampled.
    """

    clean: np.ndarray
    corrupted: np.ndarray
    selection: np.ndarray
    units: tuple[int, int]

    @classmethod
    def of(cls, judged: list[np.ndarray], selection: list[float], units: tuple[int, int]) -> _Sheet:
        grid = (len(CORRUPTIONS), len(SEVERITIES))
        corrupted = np.stack(judged[1:]).reshape(*grid, *judged[0].shape)
        return cls(judged[0], corrupted, np.reshape(selection, grid), units)

    @property
    def accuracy(self) -> np.ndarray:
        """``[1 + R]`` mean over corruptions and severities."""
        return self.corrupted[:, :, 0].mean(axis=(0, 1))

    @property
    def errors(self) -> np.ndarray:
        """``[Q, 1 + R]`` balanced error by corruption, a mean over severities."""
        return self.corrupted[:, :, 1].mean(axis=1)

    @property
    def rises(self) -> np.ndarray:
        """``[Q, 1 + R]`` by how much the error is above that on clean images."""
        return self.errors - self.clean[1]

    def corruption(self, number: int, metric: str) -> dict[str, Any]:
        accuracy, error, ece = np.moveaxis(self.corrupted[number], 1, 0)
        return {
            "mean_accuracy": share(accuracy.mean(axis=0), self.units),
            "accuracy": [share(samples, self.units) for samples in accuracy],
            "balanced_error": [number_of(samples[0]) for samples in error],
            "ece": [number_of(samples[0]) for samples in ece],
            metric: [number_of(value) for value in self.selection[number]],
        }

    def by_severity(self) -> dict[str, Any]:
        means = [self.clean, *self.corrupted.mean(axis=0)]
        return {
            "accuracy": [share(accuracy, self.units) for accuracy, _, _ in means],
            "ece": [{"value": number_of(ece[0]), "low": None, "high": None} for _, _, ece in means],
        }

    def summary(self, reference: _Sheet | None) -> dict[str, Any]:
        undefined = np.full(self.clean.shape[1], np.nan)
        rise = self.rises.mean(axis=0)
        beyond = undefined if reference is None else rise - reference.rises.mean(axis=0)
        return {
            "mean_accuracy": share(self.accuracy, self.units),
            "mean_error": estimate(self.errors.mean(axis=0)),
            "rise": estimate(rise),
            "rise_over_reference": estimate(beyond),
            "be": estimate(undefined if reference is None else relative_error(self.errors, reference.errors)),
            "rbe": estimate(undefined if reference is None else relative_error(self.rises, reference.rises)),
        }


def divisible(reference: np.ndarray) -> np.ndarray:
    """``[Q]`` bool: under which corruptions the reference, ``[Q, 1 + R]``, is surely above :data:`SLIGHT`."""
    low = np.array([percentile(samples[1:])[0] if len(samples) > 1 else samples[0] for samples in reference])
    return (reference[:, 0] > SLIGHT) & (low > SLIGHT)


def relative_error(own: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Mean of ``own / reference`` over those corruptions that are :func:`divisible`, ``[Q, 1 + R]`` each to ``[1 + R]``.

    NaN where they are fewer than half of all.
    """
    usable = divisible(reference)
    if 2 * usable.sum() < len(usable):
        return np.full(reference.shape[1], np.nan)
    own, reference = own[usable], reference[usable]
    here = reference > SLIGHT  # in a rare resample less is left
    ratios = np.where(here, own / np.where(here, reference, 1.0), 0.0)
    return divide(ratios.sum(axis=0), here.sum(axis=0).astype(np.float64))


def _difference(student: _Sheet, other: _Sheet) -> Estimate:
    """Mean accuracies on the same resamples; where all agree, Wilson's bound for what was never seen."""
    found = estimate(student.accuracy - other.accuracy)
    if found["low"] is not None and found["high"] is not None and found["low"] == found["high"]:
        doubt = 1 - wilson(student.units[1], student.units[1])[0]
        return found | {"low": found["low"] - doubt, "high": found["high"] + doubt}
    return found


def _published(data_name: str, sheets: Mapping[str, _Sheet]) -> dict[str, Any] | None:
    if data_name not in ALEXNET:
        return None
    clean, corrupted = ALEXNET[data_name]
    return {
        "network": "AlexNet",
        "clean_error": clean,
        "mean_error": corrupted,
        "ratio": {role: number_of(sheet.errors[:, 0].mean() / corrupted) for role, sheet in sheets.items()},
        "note": "The errors are those that MedMNIST-C gives for its AlexNet, not measured here. Its corruptions were "
        "made anew here, and not all are the same, so the ratio is only near the balanced error that it would state.",
    }


def _notes(reference: str | None, sheet: _Sheet | None, resamples: int) -> list[str]:
    notes = []
    if resamples == 0:
        notes.append("No resamples were asked for, so no figure has an interval.")
    if sheet is None:
        return [*notes, "No network was named as reference, so BE and rBE are not defined."]
    for name, samples, what in (
        ("BE", sheet.errors, "error is not surely above"),
        ("rBE", sheet.rises, "error does not surely rise by more than"),
    ):
        usable = divisible(samples)
        if 2 * usable.sum() < len(usable):
            notes.append(
                f"{name} is not given: under {int((~usable).sum())} of {len(usable)} corruptions the {reference}'s {what}"
                f" {SLIGHT}, and a ratio to next to nothing says nothing. The difference of the rises stands in its place."
            )
        elif not usable.all():
            notes.append(f"{name} leaves out where the {reference}'s {what} {SLIGHT}: {_named(~usable)}.")
    return notes


def _named(chosen: np.ndarray) -> str:
    return ", ".join(c.name.replace("_", " ") for c, taken in zip(CORRUPTIONS, chosen, strict=True) if taken)

"""The few figures by which patients and subgroups are judged: AUC (or kappa), accuracy, sensitivity and specificity.

The same figures and intervals as :mod:`stillroom.evaluation.metrics` gives, of any part of the images at once, over any of
the classes, and where the truth of some labels is not known: a quarter of the work, so that a hundred subgroups cost seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stillroom.evaluation.decisions import APART, chosen, filled, of_mean
from stillroom.evaluation.effective import seen, shares, span, unseen, unseen_in_mean, variance
from stillroom.evaluation.intervals import LEVEL, Ranking, Resamples, group_indices
from stillroom.evaluation.metrics import by_unit, checked, measure
from stillroom.task import Task

KAPPA = "quadratic_kappa"
_OF_CLASSES = ("auc", "sensitivity", "specificity")
_NEED_BOTH = ("auc", "specificity")


@dataclass(frozen=True)
class Answers:
    """What a classifier said of ``N`` images (or patients), and what is true.

    Attributes:
        task: what the probabilities mean.
        probabilities: ``[N, K]`` float64.
        targets: in the task's form.
        truth: ``[N, K]`` bool.
        decided: ``[N, K]`` bool.
        known: ``[N, K]`` bool, where the truth is known; None for everywhere. Of classes that exclude each other it is.
        members: ``[N]`` whole numbers from 0, equal for images of one patient; None where no patient is known.
    """

    task: Task
    probabilities: np.ndarray
    targets: np.ndarray
    truth: np.ndarray
    decided: np.ndarray
    known: np.ndarray | None = None
    members: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        probabilities: np.ndarray,
        targets: np.ndarray,
        patients: np.ndarray | None = None,
        known: np.ndarray | None = None,
    ) -> Answers:
        """Of ``[N, K]`` probabilities and ``[N]`` str patients, ``""`` where unknown; raises what
        :func:`~stillroom.evaluation.metrics.score` does."""
        probabilities = checked(task, probabilities, targets)
        grouped = patients is not None and bool((np.asarray(patients) != "").any())
        return cls(
            task=task,
            probabilities=probabilities,
            targets=targets,
            truth=task.one_hot(targets) > 0,
            decided=task.one_hot(task.decide(probabilities)) > 0,
            known=known,
            members=group_indices(patients) if grouped and patients is not None else None,
        )

    @property
    def unit(self) -> str:
        """What is independent: ``patient`` or ``image``."""
        return "image" if self.members is None else "patient"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the figures, the one that networks are compared by first."""
        main = self.task.selection_metric
        return (main, *(("auc",) if main != "auc" else ()), "accuracy", "sensitivity", "specificity")

    def take(self, rows: np.ndarray) -> Answers:
        """The same of these rows, in this order; patients are numbered anew."""
        return Answers(
            self.task,
            self.probabilities[rows],
            self.targets[rows],
            self.truth[rows],
            self.decided[rows],
            None if self.known is None else self.known[rows],
            None if self.members is None else np.unique(self.members[rows], return_inverse=True)[1],
        )

    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """How many patients (or images) have, and have not, each of the ``K`` classes: ``[K]`` each."""
        known = np.ones_like(self.truth) if self.known is None else self.known
        both = []
        for mask in (self.truth & known, ~self.truth & known):
            if self.members is None:
                both.append(mask.sum(axis=0))
            else:
                both.append(np.array([len(np.unique(self.members[column])) for column in mask.T], dtype=np.int64))
        return both[0], both[1]


@dataclass(frozen=True)
class Figure:
    """One figure of some images, with all that its interval is made of. See :mod:`stillroom.evaluation.effective`.

    Attributes:
        value: NaN where it is not defined.
        variance: of it.
        moves: ``[U]`` how far each image, or patient where they are known, moves it.
        images: on how many images it rests.
        units: the same in patients where they are known.
        parts: of a mean over classes each class's value, its variance, how many units move it, images and units that it rests
            on: ``[5, C]``.
        total: how many images or patients there are.
        start, end: smallest and largest value.
        decided: whether it is a mean of shares of decisions.
        apart: whether these rest on images that have nothing in common.
    """

    value: float
    variance: float
    moves: np.ndarray
    images: float
    units: float
    parts: np.ndarray | None
    total: float
    start: float = 0.0
    end: float = 1.0
    decided: bool = False
    apart: bool = False


Ends = tuple[float, float]


def intervals(figures: Sequence[Figure], level: float = LEVEL) -> list[Ends]:
    """Of each figure; NaN twice where it is not defined or rests on fewer than two units."""
    if not figures:
        return []
    start, width = (np.array(part) for part in zip(*((of.start, of.end - of.start) for of in figures), strict=True))
    rows = [(of.value, of.variance, seen(of.moves), of.images, of.units) for of in figures]
    value, varying, moved_by, images, units = np.array(rows).T
    added = unseen(moved_by, images, units, level)
    for place, of in enumerate(figures):
        if of.parts is not None:
            of_each = unseen(of.parts[2], of.parts[3], of.parts[4], level)
            added[0][place], added[1][place] = unseen_in_mean(*of_each, of.total)
    ends = shares((value - start) / width, varying / width**2, moved_by, images, units, level, added)
    found = np.transpose(start + width * np.array(ends))
    for place, of in enumerate(figures):
        if of.decided and of.parts is not None and of.parts.shape[1] > 1:
            each = shares(of.parts[0], of.parts[1], of.parts[2], of.parts[3], of.parts[4], level)
            made = of_mean(of.parts[0], filled(np.transpose(each)))
            found[place] = chosen(found[place], made, of.apart)
        elif of.start < 0 and moved_by[place] == 0 and of.value < of.end:
            found[place] = np.nan  # a kappa of answers that are all alike
    return [(float(low), float(high)) for low, high in found]


def to_dict(figures: Mapping[str, Figure]) -> dict[str, dict[str, float | None]]:
    """By name ``value``, ``low`` and ``high``, None where not defined."""
    ends = intervals(list(figures.values()))
    return {
        name: dict(zip(("value", "low", "high"), map(_number, (of.value, *each)), strict=True))
        for (name, of), each in zip(figures.items(), ends, strict=True)
    }


def main_figures(answers: Answers, classes: Sequence[int] | None = None) -> dict[str, Figure]:
    """The figures of :attr:`Answers.names`, means over these classes (default: the task's scored ones).

    A class without images takes no part in a mean, one without others in that of AUC and specificity.
    """
    classes = answers.task.scored if classes is None else tuple(classes)
    found = {name: _mean_over_classes(answers, name, classes) for name in _OF_CLASSES} | {
        "accuracy": _accuracy(answers, classes)
    }
    if KAPPA in answers.names:
        found[KAPPA] = _kappa(answers)
    return {name: found[name] for name in answers.names}


def _mean_over_classes(answers: Answers, name: str, classes: Sequence[int]) -> Figure:
    values, slopes, parts = [], [], []
    for k in classes:
        known = slice(None) if answers.known is None else answers.known[:, k]
        truth, said = answers.truth[known, k], answers.decided[known, k]
        positive, total = int(truth.sum()), len(truth)
        if not positive or (name in _NEED_BOTH and positive == total):
            continue
        if name == "auc":
            ranking = Ranking.of(answers.probabilities[known, k], truth)
            slope = ranking.derivatives()[0]
            value = float(ranking.auc_and_ap(np.ones((1, total)))[0][0])
        else:
            side = truth if name == "sensitivity" else ~truth
            value = float((said == truth)[side].mean())
            slope = np.where(side, (said == truth) - value, 0.0) / side.sum()
        moved = np.zeros(len(answers.truth))
        moved[known] = slope
        values.append(value)
        slopes.append(moved)
        by_units = by_unit(moved, answers.members)
        parts.append([value, variance(by_units, moved), *_resting(answers, name, k, seen(by_units))])
    total = _units(answers)
    if not values:
        return Figure(np.nan, np.nan, np.zeros(total), 0.0, 0.0, None, float(total))
    mean, rests = np.mean(slopes, axis=0), np.array(parts).T
    moves = by_unit(mean, answers.members)
    images, units = (
        min(float(most), len(values) * float(numbers.min()))
        for most, numbers in ((len(mean), rests[3]), (total, rests[4]))
    )
    return Figure(
        float(np.mean(values)),
        variance(moves, mean),
        moves,
        images,
        units,
        rests,
        float(total),
        decided=name != "auc",
        apart=name in APART and answers.task.exclusive and answers.members is None,
    )


def _resting(answers: Answers, name: str, k: int, moved_by: float) -> list[float]:
    """How many units move a class's figure, and on how many images and units it rests (as in
    :class:`~stillroom.evaluation.effective.Basis`)."""
    known = True if answers.known is None else answers.known[:, k]
    sides = answers.truth[:, k] & known, ~answers.truth[:, k] & known
    rests = []
    for members in (None, answers.members):
        positive, negative = (float(side.sum() if members is None else len(np.unique(members[side]))) for side in sides)
        rests.append(
            {"auc": 2 * positive * negative / max(positive + negative, 1), "sensitivity": positive}.get(name, negative)
        )
    return [moved_by, *rests]


def _accuracy(answers: Answers, classes: Sequence[int]) -> Figure:
    """The share of images that are right, or with several labels each the mean share of these labels that is."""
    right = answers.decided == answers.truth
    if answers.task.exclusive:
        asked = np.ones((len(right), 1), dtype=bool)
        right = right.all(axis=1, keepdims=True)
    else:
        asked = np.ones_like(right) if answers.known is None else answers.known
        asked, right = asked[:, list(classes)], right[:, list(classes)]
    counts = asked.sum(axis=0)
    asked, right, counts = asked[:, counts > 0], right[:, counts > 0], counts[counts > 0]
    total = _units(answers)
    if not len(counts):
        return Figure(np.nan, np.nan, np.zeros(total), 0.0, 0.0, None, float(total))
    values = (right & asked).sum(axis=0) / counts
    slope = (np.where(asked, right - values, 0.0) / counts).mean(axis=1)
    moves = by_unit(slope, answers.members)
    images = float(asked.any(axis=1).sum())
    return Figure(
        float(values.mean()), variance(moves, slope), moves, images, min(images, float(total)), None, float(total)
    )


def _kappa(answers: Answers) -> Figure:
    members = answers.members
    total = _units(answers)
    groups = None if members is None else members.astype(str)
    drawn = Resamples(np.empty((0, len(answers.truth)), dtype=np.uint16), groups, total, members)
    found = measure(answers.task, answers.probabilities, answers.targets, drawn)
    start, end = span(answers.task, KAPPA)
    return Figure(
        float(found.value.overall[KAPPA][0]),
        float(found.variances.overall[KAPPA][0]),
        found.moves[KAPPA],
        found.images.overall[KAPPA],
        found.units.overall[KAPPA],
        None,
        float(total),
        start,
        end,
    )


def _units(answers: Answers) -> int:
    return len(answers.truth) if answers.members is None else int(answers.members.max()) + 1


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

"""The figures of a classifier as functions of weighted sums over images, and how far each image moves each of them.

The value of a figure is its function at weights of one. Its derivative by an image's weight says how far that image moves
it (the infinitesimal jackknife, Jaeckel 1972; of an AUC these are DeLong's components): the sum of their squares, or of
those of whole patients, is the figure's variance, without any resampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stillroom.evaluation.calibration import calibration_gaps
from stillroom.evaluation.intervals import BLOCK_CELLS, Ranking, blocks, divide
from stillroom.task import Task

# One-against-rest figures, which exist per class and as a mean over the task's scored classes.
CLASS_FIGURES = ("auc", "sensitivity", "specificity", "precision", "f1", "average_precision")
NEED_NEGATIVES = ("auc", "specificity", "average_precision")
STEP = 1e-4
"""Of the weight of an image, up and down, for a derivative: its error is some 1e-8 of it."""


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
class Tally:
    """What every image adds to the sums that figures are functions of.

    Attributes:
        task: what the probabilities mean.
        truth: ``[N, K]`` float64 of 0/1.
        predicted: ``[N, K]`` float64 of 0/1.
        parts: names of the sums, and their columns in ``stacked``.
        stacked: ``[N, C]`` float64.
        rankings: of the ``K`` classes.
    """

    task: Task
    truth: np.ndarray
    predicted: np.ndarray
    parts: dict[str, slice]
    stacked: np.ndarray
    rankings: list[Ranking]

    @classmethod
    def of(cls, task: Task, probabilities: np.ndarray, targets: np.ndarray) -> Tally:
        """Tally ``[N, K]`` float64 probabilities."""
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
        edges = np.cumsum([0, *(column.shape[1] for column in columns.values())])
        return cls(
            task=task,
            truth=truth,
            predicted=predicted,
            parts={name: slice(edges[i], edges[i + 1]) for i, name in enumerate(columns)},
            stacked=np.concatenate(list(columns.values()), axis=1),
            rankings=[Ranking.of(probabilities[:, k], truth[:, k]) for k in range(truth.shape[1])],
        )

    def sums(self, stacked: np.ndarray) -> dict[str, np.ndarray]:
        """``[R, C]`` weighted sums by name."""
        return {name: stacked[:, columns] for name, columns in self.parts.items()}


def figures(task: Task, probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Figures:
    """Every figure under every weighting.

    Args:
        probabilities: ``[N, K]`` float64.
        weights: ``[R, N]``, 0 or more, such as :func:`~stillroom.evaluation.intervals.resample_weights`
            draws.
    """
    return weighted(Tally.of(task, probabilities, targets), weights)


def weighted(tally: Tally, weights: np.ndarray) -> Figures:
    """:func:`figures` of what was tallied."""
    done = []
    for block in blocks(weights):
        ranked = [ranking.auc_and_ap(block) for ranking in tally.rankings]
        auc, ap = (np.stack(column, axis=1) for column in zip(*ranked, strict=True))
        done.append(_all(tally, tally.sums(block @ tally.stacked), block.sum(axis=1), auc, ap))
    return _joined(done)


def derivatives(tally: Tally, value: Figures) -> Figures:
    """How far each image moves each figure: the derivative by its weight, at weights of one, ``[N]`` and ``[N, K]``.

    By central differences of the formulas themselves, so that there is one set of them. Those of an undefined figure are
    NaN. The calibration error has none (it has kinks).

    Args:
        value: the figures at weights of one.
    """
    images = len(tally.stacked)
    whole = tally.stacked.sum(axis=0)
    ranked = [ranking.derivatives() for ranking in tally.rankings]
    slopes = [np.stack(column, axis=1) for column in zip(*ranked, strict=True)]
    centres = [value.per_class[name] for name in ("auc", "average_precision")]
    rows = max(1, BLOCK_CELLS // (16 * len(whole)))
    done = []
    for start in range(0, images, rows):
        block = slice(start, start + rows)
        moved = [
            _all(
                tally,
                tally.sums(whole + step * tally.stacked[block]),
                images + np.full(len(tally.stacked[block]), step),
                *(centre + step * slope[block] for centre, slope in zip(centres, slopes, strict=True)),
            )
            for step in (STEP, -STEP)
        ]
        done.append(
            Figures(
                *(
                    {name: (up[name] - down[name]) / (2 * STEP) for name in up if name != "ece"}
                    for up, down in zip(*((one.overall, one.per_class) for one in moved), strict=True)
                )
            )
        )
    return _joined(done)


def centred(tally: Tally, value: Figures) -> Figures:
    """The figures at weights of one, with the average precision freed of its bias, which intervals are laid around."""
    name = "average_precision"
    without = np.array([[ranking.precision_without_self() for ranking in tally.rankings]])
    over = Averaged.of(tally.task, tally.truth).contrasted
    return Figures(value.overall | {name: _mean(without[:, over])}, value.per_class | {name: without})


def _joined(parts: list[Figures]) -> Figures:
    return Figures(
        {name: np.concatenate([part.overall[name] for part in parts]) for name in parts[0].overall},
        {name: np.concatenate([part.per_class[name] for part in parts]) for name in CLASS_FIGURES},
    )


def _all(tally: Tally, sums: dict[str, np.ndarray], total: np.ndarray, auc: np.ndarray, ap: np.ndarray) -> Figures:
    per_class = _per_class(sums, total) | {"auc": auc, "average_precision": ap}
    return Figures(_overall(tally.task, sums, total, per_class, tally.truth), per_class)


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
    over = Averaged.of(task, truth)
    means = (*CLASS_FIGURES, "balanced_accuracy")
    overall = {
        name: _mean(np.concatenate([per_class[part][:, of] for part, of in over.parts(task, name)], axis=1))
        for name in means
    }
    positive, predicted, hit = sums["positive"], sums["predicted"], sums["hit"]
    if task.exclusive:
        overall["mcc"] = _mcc(hit.sum(axis=1), predicted, positive, total)
    else:
        whole = total[:, None]
        right = whole - predicted - positive + 2 * hit
        two_sided = [np.stack([counts, whole - counts], axis=2) for counts in (predicted, positive)]
        overall["mcc"] = _mean(_mcc(right, two_sided[0], two_sided[1], whole)[:, over.contrasted])
    for name in ("brier", "nll"):
        overall[name] = divide(sums[name][:, 0], total)
    overall["accuracy"] = divide(sums["correct"][:, 0], total)
    overall["ece"] = divide(np.abs(sums["gaps"]).sum(axis=1), total)
    if task.selection_metric == "quadratic_kappa":
        overall["quadratic_kappa"] = _quadratic_kappa(sums, total)
    return overall


def _mcc(right: np.ndarray, predicted: np.ndarray, positive: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Matthews' coefficient over the last axis (classes) of the margins, in [-1, 1].

    Constant targets or predictions leave it not defined: 0 / 0.
    """
    shared = right * total - (predicted * positive).sum(axis=-1)
    varied = [total**2 - (margin**2).sum(axis=-1) for margin in (predicted, positive)]
    # One class alone leaves no variety but for rounding; a single image of another leaves 2 / total of it.
    constant = [part <= 1e-12 * total**2 for part in varied]
    return divide(shared, np.where(constant[0] | constant[1], 0, np.sqrt(np.abs(varied[0] * varied[1]))))


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


@dataclass(frozen=True)
class Averaged:
    """Over which classes means are taken: of ``[N, K]`` truth, those that are there at all.

    Attributes:
        present: classes with images.
        scored: of these the task's scored ones.
        contrasted: of these the ones that some image is not of.
    """

    present: np.ndarray
    scored: np.ndarray
    contrasted: np.ndarray

    @classmethod
    def of(cls, task: Task, truth: np.ndarray) -> Averaged:
        """Of ``[N, K]`` truth of 0/1."""
        support = truth.sum(axis=0)
        present = np.flatnonzero(support > 0)
        scored = np.intersect1d(task.scored, present)
        return cls(present, scored, scored[support[scored] < len(truth)])

    def parts(self, task: Task, name: str) -> list[tuple[str, np.ndarray]]:
        """Which figures of which classes an overall figure is the mean of; none where it is no such mean."""
        if name in CLASS_FIGURES:
            return [(name, self.contrasted if name in NEED_NEGATIVES else self.scored)]
        if name != "balanced_accuracy":
            return []
        both = [("sensitivity", self.contrasted), ("specificity", self.contrasted)]
        return [("sensitivity", self.present)] if task.exclusive else both

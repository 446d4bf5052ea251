"""Split-conformal prediction: instead of one class a set of classes, which holds the truth as often as was asked for.

The rule is fitted on validation images and holds for any model, however badly calibrated, as long as new images
are drawn as the validation images were. A model that knows little pays with large sets.

The score is minus the log-probability of the class at temperature 1. The run's temperature is fitted on the same
validation images; a score that does not depend on it leaves the promise untouched by that. On probabilities it is
the rule of least ambiguous sets (Sadinle, Lei and Wasserman, 2019): all classes more probable than a threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from stillroom.errors import UsageError
from stillroom.evaluation.estimates import Estimate, ratio
from stillroom.evaluation.intervals import group_indices
from stillroom.evaluation.metrics import checked
from stillroom.shown import counted
from stillroom.task import Task

APPROXIMATE = "The validation images also chose the epoch, so the promise is approximate."
"""What is said of every rule that is chosen on validation: sets, refusals and thresholds."""
LEVEL = 0.95
STATES = ("absent", "present")
# Keeps the score of an impossible class finite: only the threshold of too few images is infinite.
SMALLEST = 1e-300


@dataclass(frozen=True)
class ConformalRule:
    """Which classes go into the set of an image: those that score no more than a threshold.

    Attributes:
        coverage: wanted share of sets that hold the truth, in (0, 1).
        class_conditional: the coverage is promised in every class (of a multi-label task: in both states of every
            label), not only over all images. Also known as Mondrian conformal prediction (Vovk, 2012).
        thresholds: ``[K]`` in nats; ``[K, 2]`` (absent, present) for multi-label, where every label has its own
            even without ``class_conditional``. ``inf`` where too few images were there to promise anything: the
            class is in every set.
        images: number of images that the thresholds come from.
    """

    coverage: float
    class_conditional: bool
    thresholds: np.ndarray
    images: int

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1:
            raise UsageError(f"coverage must lie between 0 and 1, got {self.coverage}.")

    def sets(self, task: Task, logits: np.ndarray, *, allow_empty: bool = False) -> np.ndarray:
        """The classes in each image's set, ``[N, K]`` bool; for multi-label ``[N, K, 2]`` (absent, present).

        Args:
            task: what the logits mean.
            logits: ``[N, K]``, before any temperature.
            allow_empty: keep sets empty that no class is sure enough for. Without it the class (state) decided for
                is always in the set: an empty set helps nobody, and the coverage can only rise.

        Raises:
            UsageError: no images, or a rule that was fitted for other classes.
            RunError: a logit that is not a number.
        """
        probabilities = checked(task, task.probabilities(logits), logits)
        scores = _nonconformity(task, probabilities)
        if self.thresholds.shape != scores.shape[1:]:
            raise UsageError(
                f"A conformal rule for {len(self.thresholds)} classes (shape {list(self.thresholds.shape)}) does not "
                f"fit a {task.kind} task of {len(task.classes)}: fit it anew."
            )
        sets = scores <= self.thresholds
        return sets if allow_empty else sets | _states(task, task.one_hot(task.decide(probabilities))).astype(bool)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; an infinite threshold is None."""
        flat = [float(value) if np.isfinite(value) else None for value in self.thresholds.ravel()]
        pairs = [flat[i : i + 2] for i in range(0, len(flat), 2)]
        return {
            "coverage": self.coverage,
            "class_conditional": self.class_conditional,
            "thresholds": flat if self.thresholds.ndim == 1 else pairs,
            "images": self.images,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ConformalRule:
        """The rule that :meth:`to_dict` wrote."""
        thresholds = np.array(stored["thresholds"], dtype=np.float64)  # None becomes NaN
        return cls(
            coverage=float(stored["coverage"]),
            class_conditional=bool(stored["class_conditional"]),
            thresholds=np.where(np.isnan(thresholds), np.inf, thresholds),
            images=int(stored["images"]),
        )


def fit_conformal(
    task: Task, logits: np.ndarray, targets: np.ndarray, *, coverage: float, class_conditional: bool
) -> ConformalRule:
    """The rule whose sets hold the truth of a new image with a chance of at least ``coverage``.

    Args:
        task: what the logits mean.
        logits: ``[N, K]`` logits of the validation images before any temperature, never of the test.
        targets: their targets, in the task's form.
        coverage: wanted, in (0, 1).
        class_conditional: see :class:`ConformalRule`.

    Raises:
        UsageError: no images, shapes that do not fit together, or a coverage out of range.
        RunError: a logit that is not a number.
    """
    scores = _nonconformity(task, checked(task, task.probabilities(logits), targets))
    truth = _states(task, task.one_hot(targets)).astype(bool)
    # One threshold for every cell that the promise is made for; [n] scores of the truth decide it.
    if class_conditional:
        cells = [conformal_quantile(scores[:, *k][truth[:, *k]], coverage) for k in np.ndindex(scores.shape[1:])]
    elif task.exclusive:
        cells = [conformal_quantile(scores[truth], coverage)] * len(task.classes)
    else:
        labels = range(len(task.classes))
        cells = [conformal_quantile(scores[:, k][truth[:, k]], coverage) for k in labels for _ in STATES]
    return ConformalRule(coverage, class_conditional, np.reshape(cells, scores.shape[1:]), len(scores))


def conformal_quantile(scores: np.ndarray, coverage: float) -> float:
    """The score that one more, drawn as these were, does not exceed with a chance of at least ``coverage``.

    It is the ``ceil((n + 1) * coverage)``-th smallest of ``[n]`` scores, or ``inf`` where that is more than ``n``.
    Source: Vovk, Gammerman and Shafer, 2005; Lei et al., 2018.
    """
    # Rounded first: 0.07 * 100 is a little above 7 in floating point, and must not count as 8.
    rank = ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else float("inf")


def coverage_report(
    task: Task,
    rule: ConformalRule,
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    patients: np.ndarray | None,
) -> dict[str, Any]:
    """What the sets are worth on images that the rule has not seen, ready for JSON.

    Of a multi-label task every pair of image and label has a set of its own, and figures are over those pairs.
    The 95 % intervals are those of shares of an effective number of images or patients
    (:func:`~stillroom.evaluation.estimates.ratio`). They are of this rule: that another validation set would have given
    another is not in them.

    Args:
        logits: ``[N, K]`` before any temperature.
        targets: in the task's form.
        patients: ``[N]`` str; whole patients then count. ``""`` where unknown.

    Returns:
        ``wanted``, ``class_conditional`` and ``calibration_images``, of the rule. ``coverage`` (share of sets that
        hold the truth), ``mean_size``, ``singletons`` (share of sets with one member) and ``accuracy_of_singletons``
        (share of those that hold the truth), each ``{"value", "low", "high"}``. ``per_class``: name to ``coverage``
        and ``size`` over the images of the class and ``support``, their number; for multi-label ``coverage`` and
        ``size`` are over all images, and ``coverage_present`` over the ``support`` images that have the label.
        ``statement`` and ``notes``. What is not defined is None.

    Raises:
        UsageError: no images, or shapes that do not fit together.
        RunError: a logit that is not a number.
    """
    checked(task, task.probabilities(logits), targets)
    sets = rule.sets(task, logits)
    labelled = task.one_hot(targets)
    # One question per image, or one per label: [N, Q].
    covered = (sets & _states(task, labelled).astype(bool)).any(axis=-1).reshape(len(sets), -1)
    sizes = sets.sum(axis=-1).reshape(len(sets), -1)
    single = sizes == 1
    asked = np.ones_like(sizes)

    groups = known_patients(patients)
    units = None if groups is None else group_indices(groups)
    largest = float(sets.shape[-1])

    def whole(above: np.ndarray, below: np.ndarray, ends: tuple[float, float] = (0.0, 1.0)) -> Estimate:
        return ratio(above.sum(axis=1), below.sum(axis=1), units, ends)

    def by_class(above: np.ndarray, below: np.ndarray, ends: tuple[float, float] = (0.0, 1.0)) -> list[Estimate]:
        return [ratio(*pair, units, ends) for pair in zip((above * below).T, below.T, strict=True)]

    members = labelled if task.exclusive else np.ones_like(labelled)
    parts = {"coverage": by_class(covered, members), "size": by_class(sizes, members, (1.0, largest))}
    if not task.exclusive:
        parts["coverage_present"] = by_class(covered, labelled)
    coverage = whole(covered, asked)
    per_class: dict[str, dict[str, Any]] = {
        name: {part: figures[k] for part, figures in parts.items()} | {"support": int(labelled[:, k].sum())}
        for k, name in enumerate(task.classes)
    }
    return {
        "wanted": rule.coverage,
        "class_conditional": rule.class_conditional,
        "calibration_images": rule.images,
        "coverage": coverage,
        "per_class": per_class,
        "mean_size": whole(sizes, asked, (1.0, largest)),
        "singletons": whole(single, asked),
        "accuracy_of_singletons": whole(single & covered, single),
        "statement": _statement(task, coverage, rule.coverage),
        "notes": [
            *_rule_notes(task, rule),
            *_class_notes(rule, per_class),
            *_size_notes(sizes),
            *_promise_notes(task, rule, grouped=units is not None and len(np.unique(units)) < len(units)),
        ],
    }


def share(chosen: np.ndarray, patients: np.ndarray | None) -> Estimate:
    """The share of ``[N]`` bool images that are chosen, with its interval over images or whole patients."""
    groups = known_patients(patients)
    return ratio(chosen, np.ones(len(chosen)), None if groups is None else group_indices(groups))


def known_patients(patients: np.ndarray | None) -> np.ndarray | None:
    """``[N]`` str patients as they are, or None where not one is known: images then count."""
    return patients if patients is not None and (np.asarray(patients) != "").any() else None


def in_percent(share: float, bound: float) -> str:
    """A share in percent, with the fewest decimals (1 to 4) that show it on its true side of ``bound``."""
    side = np.sign(share - bound)
    digits = next((d for d in range(1, 4) if np.sign(round(share, d + 2) - bound) == side), 4)
    return f"{100 * share:.{digits}f}"


def _states(task: Task, values: np.ndarray) -> np.ndarray:
    """``[N, K]`` of what may be in a set; of a multi-label task ``[N, K, 2]``, absent beside present."""
    return values if task.exclusive else np.stack([1 - values, values], axis=-1)


def _nonconformity(task: Task, probabilities: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(_states(task, probabilities), SMALLEST))


def _statement(task: Task, coverage: Estimate, wanted: float) -> str:
    """One sentence for people; its rounding never contradicts the claim it makes."""
    value, low, high = coverage["value"], coverage["low"], coverage["high"]
    assert value is not None
    asked = "the true class of" if task.exclusive else "the true state of the label in"
    pairs = "images" if task.exclusive else "pairs of image and label"
    measured = f"The sets hold {asked} {in_percent(value, wanted)} % of the {pairs}"
    if low is None or high is None:
        return f"{measured}; no interval could be computed, so nothing can be claimed."
    promise = f"the {100 * wanted:g} % that was promised"
    if high < wanted:
        claim = f"below what was promised: {100 * wanted:g} %."
    elif low >= wanted:
        claim = f"at least {promise}."
    else:
        claim = f"which agrees with {promise}, but does not prove it."
    return f"{measured} (95 % interval {in_percent(low, wanted)} to {in_percent(high, wanted)} %), {claim}"


def _rule_notes(task: Task, rule: ConformalRule) -> list[str]:
    """Which thresholds are infinite, and how many images would be enough."""
    unbounded = np.isinf(rule.thresholds)
    enough = ceil(round(rule.coverage / (1 - rule.coverage), 9))
    if not unbounded.any():
        return []
    if unbounded.all():
        each = (" of each class" if task.exclusive else " of each state") if rule.class_conditional else ""
        return [
            f"Too few calibration images to promise {100 * rule.coverage:g} % (at least {enough}{each} are needed): "
            "every set is everything and says nothing."
        ]
    cells = [
        task.classes[k[0]] if task.exclusive else f"{task.classes[k[0]]} ({STATES[k[1]]})"
        for k in np.argwhere(unbounded)
    ]
    return [f"Too few calibration images (at least {enough} are needed), hence in every set: {', '.join(cells)}."]


def _class_notes(rule: ConformalRule, per_class: dict[str, dict[str, Any]]) -> list[str]:
    """Classes without images, and those whose interval lies below what is wanted of all."""
    notes = []
    missing = [name for name, figures in per_class.items() if figures["support"] == 0]
    if missing:
        notes.append(f"No image is of class {', '.join(missing)}: whether sets would hold it is not known.")
    if "coverage_present" in next(iter(per_class.values())):
        # Every label has thresholds of its own, so the promise is made for each label at least.
        checks = [
            ("coverage", "for every label", True),
            ("coverage_present", "for both states", rule.class_conditional),
        ]
    else:
        checks = [("coverage", "for every class", rule.class_conditional)]
    for part, whose, promised in checks:
        short = _short(per_class, part, rule.coverage)
        where = "Where the label is present, covered" if part == "coverage_present" else "Covered"
        if short:
            promise = f"this is below what was promised {whose}" if promised else f"the promise is not made {whose}"
            notes.append(f"{where} less often than {100 * rule.coverage:g} %: {', '.join(short)}; {promise}.")
    return notes


def _size_notes(sizes: np.ndarray) -> list[str]:
    notes = []
    if not (sizes == 1).any():
        notes.append("No set has exactly one member: the accuracy of such sets is not defined.")
    return notes


def _short(per_class: dict[str, dict[str, Any]], part: str, wanted: float) -> list[str]:
    """The classes, with figures, for which the whole interval of ``part`` lies below what is wanted."""
    figures = {name: [parts[part][key] for key in ("value", "low", "high")] for name, parts in per_class.items()}
    return [
        "{} ({} %, 95 % interval {} to {} %)".format(name, *(in_percent(share, wanted) for share in shares))
        for name, shares in figures.items()
        if shares[2] is not None and shares[2] < wanted
    ]


def _promise_notes(task: Task, rule: ConformalRule, *, grouped: bool) -> list[str]:
    """What the promise rests on."""
    notes = []
    if task.exclusive and not rule.class_conditional and np.isfinite(rule.thresholds).all():
        from scipy.stats import beta

        # Vovk, 2012: given the calibration images, the coverage is beta-distributed.
        rank = ceil(round((rule.images + 1) * rule.coverage, 9))
        low, high = beta.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2], rank, rule.images + 1 - rank)
        notes.append(
            f"The promise is kept on average over calibration sets. By chance alone, rules from "
            f"{counted(rule.images, 'image')} cover {in_percent(low, rule.coverage)} to {in_percent(high, rule.coverage)} % "
            "(in 95 of 100 cases; more where the most probable class is added)."
        )
    if grouped:
        notes.append("The promise takes images as drawn one by one; several images of a patient are not.")
    return [*notes, APPROXIMATE]

"""Operating points: a threshold on the calibrated probability, chosen on validation for a wanted sensitivity or specificity.

The highest threshold is taken at which the sensitivity is surely at least what is wanted: the lower end of its exact
one-sided 95 % interval (Clopper and Pearson) on the validation images with the finding. So of 100 validation sets drawn
anew at least 95 give a threshold whose true sensitivity is what was wanted or more; one that merely reaches it on validation
falls short for every second set. (It is the distribution-free tolerance limit of Wilks, 1941.) Where patients are known they
count, not their images: the interval is that of the effective number of patients (Kish), as if a patient's images were all
alike. Below ``log .05 / log wanted`` images (59 for .95) nothing can be sure of it: the threshold then finds every validation
image with the finding, and what it does promise is said.

A specificity is treated alike, among the images without the finding, from below.

proofs/operating_points.py simulates how often the promise is kept (docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log
from typing import Any, Literal, get_args

import numpy as np

from stillroom.evaluation.conformal import APPROXIMATE, in_percent
from stillroom.evaluation.estimates import Estimate, ratio
from stillroom.evaluation.intervals import draw
from stillroom.evaluation.metrics import checked
from stillroom.evaluation.questions import answers, chances, question_names, question_of
from stillroom.settings.wishes import NOTHING, USUAL, wanted_shares
from stillroom.shown import counted
from stillroom.task import Task

Kind = Literal["sensitivity", "specificity"]
ASSURANCE = 0.95
"""The share of validation sets whose threshold keeps the promise."""
DEFAULT = 0.95
"""The sensitivity for which a binary or multi-label task gets a threshold where nothing is said."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, and what it was chosen for.

    Attributes:
        of: the question, see :func:`~stillroom.evaluation.questions.question_names`.
        kind: what is wanted, ``sensitivity`` or ``specificity``.
        wanted: how much of it, in (0, 1).
        threshold: an image is flagged where the calibrated probability is this or more.
        promised: what is surely reached: ``wanted``, or less where there were too few validation images.
        images: number of validation images that it was chosen on, with the finding (of a specificity, without it).
        units: the effective number of patients that these count as; the images where patients are not known.
    """

    of: str
    kind: Kind
    wanted: float
    threshold: float
    promised: float
    images: int
    units: float

    @property
    def name(self) -> str:
        """Such as ``malignant at sensitivity 0.95``."""
        return f"{self.of} at {self.kind} {self.wanted:g}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form, in metrics.json and in the exported file."""
        return {
            "of": self.of,
            "for": self.kind,
            "wanted": self.wanted,
            "threshold": self.threshold,
            "promised": self.promised,
            "images": self.images,
            "units": self.units,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> OperatingPoint:
        """The point that :meth:`to_dict` wrote; other keys are passed over."""
        return cls(
            stored["of"], stored["for"], float(stored["wanted"]), float(stored["threshold"]), float(stored["promised"]),
            int(stored["images"]), float(stored["units"]),
        )  # fmt: skip


def wishes(task: Task, sensitivity: Sequence[str], specificity: Sequence[str]) -> list[tuple[int, Kind, float]]:
    """Which points are wanted: number of the question, kind, and share; by question.

    Args:
        task: with nothing said (``auto``), a binary or multi-label one gets :data:`DEFAULT`, others nothing.
        sensitivity: as in :class:`~stillroom.settings.evaluation.EvaluationSettings`.
        specificity: likewise.

    Raises:
        UsageError: a class is named of which there is no question.
    """
    found: list[tuple[int, Kind, float]] = []
    for kind, given in zip(get_args(Kind), (sensitivity, specificity), strict=True):
        shares = wanted_shares(kind, given)
        if shares == {USUAL: None}:
            shares = {NOTHING: DEFAULT} if task.kind in ("binary", "multilabel") else {}
        by_question = dict.fromkeys(range(len(question_names(task))), shares.pop(NOTHING, None))
        by_question |= {question_of(task, name): share for name, share in shares.items()}
        found += [(number, kind, share) for number, share in by_question.items() if share is not None]
    return sorted(found, key=lambda wish: wish[0])


def fit_points(
    task: Task,
    probabilities: np.ndarray,
    targets: np.ndarray,
    patients: np.ndarray | None,
    wanted: Sequence[tuple[int, Kind, float]],
) -> tuple[OperatingPoint, ...]:
    """The thresholds, by what was wanted; none for a finding that no validation image has (or that every one has).

    Args:
        task: what the probabilities mean.
        probabilities: ``[N, K]`` calibrated ones of the validation images, never of the test.
        targets: their targets, in the task's form.
        patients: ``[N]`` str, ``""`` where unknown; None where none is known.
        wanted: see :func:`wishes`.

    Raises:
        UsageError: no images, or shapes that do not fit together.
        RunError: a probability that is not a number.
    """
    if not wanted:
        return ()
    chance, truth = chances(task, checked(task, probabilities, targets)), answers(task, targets)
    members = draw(len(truth), 0, 0, patients).members
    names = question_names(task)
    found = []
    for number, kind, share in wanted:
        # A specificity is the sensitivity for what is not the finding, with scores turned round.
        side = truth[:, number] if kind == "sensitivity" else ~truth[:, number]
        if not side.any():
            continue
        scores = chance[:, number] if kind == "sensitivity" else -chance[:, number]
        units = float(side.sum()) if members is None else _kish(members[side])
        least, promised = lowest_kept(scores[side], units, share)
        threshold = _below(scores, least) if kind == "sensitivity" else _above(-scores, -least)
        found.append(OperatingPoint(names[number], kind, share, threshold, promised, int(side.sum()), units))
    return tuple(found)


def lowest_kept(scores: np.ndarray, units: float, wanted: float) -> tuple[float, float]:
    """The highest of ``[n]`` scores such that surely a share ``wanted`` of such scores is this or more, and what is promised.

    Args:
        scores: of the validation images with the finding.
        units: how many independent images they count as.
        wanted: in (0, 1).
    """
    from scipy.special import betainc, betaincinv

    count, ascending = len(scores), np.sort(scores)
    kept = units * (1 - np.arange(count) / count)  # where so many of them are missed
    sure = betainc(kept, units - kept + 1, wanted) <= 1 - ASSURANCE
    missed = max(int(np.argmin(sure)) if not sure.all() else count, 1) - 1
    promised = wanted if sure[0] else float(betaincinv(units, 1.0, 1 - ASSURANCE))
    return float(ascending[missed]), promised


def needed(wanted: float) -> int:
    """How many independent images with the finding it takes at least to promise a share ``wanted`` of them."""
    return ceil(round(log(1 - ASSURANCE) / log(wanted), 9))


def _kish(members: np.ndarray) -> float:
    sizes = np.unique(members, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _below(scores: np.ndarray, least: float) -> float:
    """Half-way from ``least`` to the next lower score: rounding on another machine moves no validation image across."""
    lower = float(scores[scores < least].max(initial=0.0))
    middle = (least + lower) / 2
    return middle if middle > lower else least


def _above(scores: np.ndarray, most: float) -> float:
    """Half-way from ``most`` to the next higher score; more than 1 flags nothing."""
    higher = float(scores[scores > most].min(initial=1.0))
    middle = (most + higher) / 2
    return middle if middle > most else float(np.nextafter(most, 2.0))


def flagged(task: Task, probabilities: np.ndarray, points: Sequence[OperatingPoint]) -> np.ndarray:
    """Which images reach which thresholds, ``[N, P]`` bool.

    Args:
        task: what the ``[N, K]`` probabilities mean.
        probabilities: calibrated; float64, for float32 rounds those near 1 to one number.
        points: the ``P`` thresholds.
    """
    columns = [question_names(task).index(point.of) for point in points]
    return chances(task, probabilities)[:, columns] >= np.array([point.threshold for point in points])


def points_report(
    task: Task,
    points: Sequence[OperatingPoint],
    probabilities: np.ndarray,
    targets: np.ndarray,
    patients: np.ndarray | None,
) -> dict[str, Any]:
    """What thresholds are worth on images on which they were not chosen, ready for JSON.

    Args:
        task: what the probabilities mean.
        points: the thresholds.
        probabilities: ``[N, K]`` calibrated.
        targets: in the task's form.
        patients: ``[N]`` str, ``""`` where unknown; None where none is known.

    Returns:
        ``points``: of each what :meth:`OperatingPoint.to_dict` says, and ``figures`` (``sensitivity``,
        ``specificity``, ``ppv`` and ``npv``, the shares true of the flagged and of the others, and ``flagged``, the share of
        all; each ``{"value", "low", "high"}``, None where not defined), ``positives`` and ``negatives`` (numbers of
        images), ``share`` of positives, and ``statement``; and ``notes``.
    """
    chance, truth = chances(task, checked(task, probabilities, targets)), answers(task, targets)
    members, names = draw(len(truth), 0, 0, patients).members, question_names(task)
    told = []
    for point in points:
        number = names.index(point.of)
        ill, raised = truth[:, number], chance[:, number] >= point.threshold
        parts = {
            "sensitivity": (ill & raised, ill),
            "specificity": (~ill & ~raised, ~ill),
            "ppv": (ill & raised, raised),
            "npv": (~ill & ~raised, ~raised),
            "flagged": (raised, np.ones_like(ill)),
        }
        found = {
            name: ratio(above.astype(np.float64), below.astype(np.float64), members)
            for name, (above, below) in parts.items()
        }
        told.append(
            point.to_dict()
            | {
                "figures": found,
                "positives": int(ill.sum()),
                "negatives": int((~ill).sum()),
                "share": float(ill.mean()),
                "statement": _statement(point, found),
            }
        )
    return {"points": told, "notes": points_notes(points)}


def _statement(point: OperatingPoint, figures: Mapping[str, Estimate]) -> str:
    """One sentence for people; its rounding never contradicts the claim it makes."""
    wanted, found = point.wanted, figures[point.kind]
    other: Kind = "specificity" if point.kind == "sensitivity" else "sensitivity"
    start = f"{point.of}, flagged from a probability of {probability(point.threshold)}: "
    value, low, high = found["value"], found["low"], found["high"]
    side = "has" if point.kind == "sensitivity" else "lacks"
    if value is None:
        return f"{start}no image here {side} the finding, so its {point.kind} is not known."
    said = f"{start}{point.kind} {in_percent(value, wanted)} %"
    if low is None or high is None:
        return f"{said}; no interval could be computed, so nothing can be claimed."
    asked = f"the {100 * wanted:g} % that was wanted"
    if high < wanted:
        claim = f"below {asked}"
    elif low >= wanted:
        claim = f"at least {asked}"
    else:
        claim = f"which agrees with {asked}, but does not prove it"
    rest = [f"{other} {100 * share:.1f} %"] if (share := figures[other]["value"]) is not None else []
    rest.append(f"{100 * (figures['flagged']['value'] or 0):.1f} % of all images flagged")
    interval = f"(95 % interval {in_percent(low, wanted)} to {in_percent(high, wanted)} %)"
    return f"{said} {interval}, {claim}; {', '.join(rest)}."


def missing_points(
    task: Task, points: Sequence[OperatingPoint], wanted: Sequence[tuple[int, Kind, float]]
) -> list[str]:
    """Of which findings no threshold could be chosen, in a sentence."""
    names, there = question_names(task), {(point.of, point.kind) for point in points}
    missing = [
        f"{names[number]} at {kind} {share:g}" for number, kind, share in wanted if (names[number], kind) not in there
    ]
    if not missing:
        return []
    return [f"No threshold, for validation has no image that it could be chosen on: {', '.join(missing)}."]


def points_notes(points: Sequence[OperatingPoint]) -> list[str]:
    """Of which points the promise cannot be made, and what they promise instead: a sentence for each thing wanted; last, how
    far any of these promises holds."""
    short: dict[tuple[Kind, float], list[str]] = {}
    for point in points:
        if point.promised < point.wanted:
            images = counted(point.images, "image")
            if point.units < point.images - 0.5:
                images += f", for their patients {point.units:.1f}"
            said = f"{point.of} ({images}; surely reached is {surely(point.promised)})"
            short.setdefault((point.kind, point.wanted), []).append(said)
    notes = []
    for (kind, wanted), those in short.items():
        side, what = ("with", "all of them are flagged") if kind == "sensitivity" else ("without", "none of them is")
        notes.append(
            f"Too few validation images {side} the finding to promise {kind} {wanted:g}, for which at least {needed(wanted)} "
            f"are needed; the threshold is set so that {what}: {', '.join(those)}."
        )
    return [*notes, APPROXIMATE] if points else notes


def surely(promised: float) -> str:
    """What is surely reached, for people: two digits, cut off, for rounding up would promise more."""
    return f"{floor(100 * promised + 1e-9) / 100:.2f}"


def probability(threshold: float) -> str:
    """A threshold for people: two digits that count."""
    return f"{threshold:.2g}" if threshold < 0.1 else f"{threshold:.3f}"

"""Figures of subgroups of the test images, and the largest gap between those of a column.

**What is compared.** The main figure (AUC or kappa), sensitivity and specificity, of every two subgroups of a column that are
large enough, as means over the classes that all of these have. Accuracy is told but not compared: it goes with how many are
ill.

**A gap's interval** is made of the two subgroups' own (Zou and Donner 2008, MOVER): with ``l`` and ``u`` their ends, the
lower end of ``a - b`` is ``a - b - sqrt((a - l_a)^2 - 2 r (a - l_a)(u_b - b) + (u_b - b)^2)``, and the upper end likewise.
``r`` is the correlation of the two figures over the patients who are in both subgroups; without such patients it is 0.

**Several gaps.** All intervals of gaps of a report hold together in 95 % of the cases (Bonferroni, over all columns, figures
and pairs, those that the user named and those of image quality), so that a gap is claimed in at most 5 % of the reports in
which there is none. The largest true gap of a column lies between the largest lower end and the largest upper end of its
pairs, whichever pair it is of. The largest gap that is seen is above 0 whatever the truth: of several subgroups one is always
first.

proofs/subgroups.py simulates all this where the truth is known (docs/evidence.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from stillroom.data.bands import Grouping
from stillroom.evaluation.intervals import LEVEL
from stillroom.evaluation.main_figures import Answers, Figure, intervals, main_figures, to_dict
from stillroom.evaluation.subgroup_words import notes_on, statements

FEWEST = 10
"""A class of a subgroup is judged from so many patients (or images) with it, and as many without, on."""
WIDE = 0.3
"""Of a figure's whole range: where an interval is wider than this, it is said that it tells little."""
_COMPARED = ("sensitivity", "specificity")


@dataclass(frozen=True)
class _Judged:
    """A subgroup: its figures, whether it is compared, and the patients by whose moves figures go together."""

    name: str
    answers: Answers
    units: np.ndarray
    classes: frozenset[int]
    figures: dict[str, Figure]
    small: str

    @property
    def compared(self) -> bool:
        return not self.small


_Columns = Sequence[tuple[Sequence[_Judged], tuple[int, ...]]]
"""Of each column its subgroups, and the classes over which means are taken."""


def judge_parts(answers: Answers, parts: Mapping[str, Sequence[Grouping]], role: str) -> dict[str, dict[str, Any]]:
    """Several parts of one report, such as ``groups`` and ``quality``: the intervals of all their gaps hold together.

    Args:
        answers: of the ``N`` images.
        parts: by name, ways to part these.
        role: of the network that answered.

    Returns:
        By name, what :func:`judge_subgroups` gives of one part.
    """
    judged = {name: [_column(answers, grouping) for grouping in groupings] for name, groupings in parts.items()}
    family = sum(_comparisons(columns) for columns in judged.values())
    return {name: _judged(answers, groupings, judged[name], role, family) for name, groupings in parts.items()}


def judge_subgroups(answers: Answers, groupings: Sequence[Grouping], role: str) -> dict[str, Any]:
    """Figures of every subgroup and the largest gaps, ready for JSON; for a report with one such part.

    Args:
        answers: of the ``N`` images.
        groupings: each parts these.
        role: of the network that answered.

    Returns:
        ``role``; ``figure`` (the main one); ``unit`` (``image`` or ``patient``); ``comparisons`` (how many gaps were
        compared); ``family`` (how many in the whole report: their intervals hold together); ``columns``, each with ``name``,
        ``how``, ``edges``, ``classes`` (over which means are taken), ``all`` (figures of all images over these), ``groups``
        (each with ``name``, ``images``, ``patients`` or None, ``positives`` or None, ``small``: why it is not compared, else
        empty, ``wide``: whether its main figure tells little, and its figures), ``gaps`` (by figure: ``value``, ``low`` and
        ``high`` of the largest, ``most`` and ``least``: the subgroups that it is between, and ``sure``: pairs whose interval
        leaves 0 out, the better first) and ``statements``; and ``notes``.
    """
    return judge_parts(answers, {"": groupings}, role)[""]


def _pairs(groups: Sequence[_Judged]) -> list[tuple[_Judged, _Judged]]:
    return list(combinations([one for one in groups if one.compared], 2))


def _comparisons(judged: _Columns) -> int:
    return (1 + len(_COMPARED)) * sum(len(_pairs(groups)) for groups, _ in judged)


def _judged(
    answers: Answers, groupings: Sequence[Grouping], judged: _Columns, role: str, family: int
) -> dict[str, Any]:
    names = (answers.task.selection_metric, *_COMPARED)
    level = 1 - (1 - LEVEL) / max(family, 1)
    columns = []
    for grouping, (groups, classes) in zip(groupings, judged, strict=True):
        compared = _pairs(groups)
        gaps = {name: gap for name in names if (gap := _largest(name, compared, level)) is not None}
        columns.append(
            {
                "name": grouping.name,
                "how": grouping.how,
                "edges": list(grouping.edges),
                "classes": [answers.task.classes[k] for k in classes],
                "all": to_dict(main_figures(answers, classes)),
                "groups": [_told(one) for one in groups],
                "gaps": gaps,
            }
        )
        columns[-1]["statements"] = statements(columns[-1])
    found = {
        "role": role,
        "figure": answers.task.selection_metric,
        "unit": answers.unit,
        "comparisons": _comparisons(judged),
        "family": family,
        "columns": columns,
    }
    return found | {"notes": notes_on(answers.task, found, FEWEST)}


def _column(answers: Answers, grouping: Grouping) -> tuple[list[_Judged], tuple[int, ...]]:
    """Subgroups with their figures over the classes that all who are compared have, and these classes."""
    parts = [np.flatnonzero(grouping.members == k) for k in range(len(grouping.groups))]
    taken = [answers.take(rows) for rows in parts]
    usable = [_usable(part) for part in taken]
    small = [_too_small(part, classes, answers) for part, classes in zip(taken, usable, strict=True)]
    own = [classes for classes, why in zip(usable, small, strict=True) if not why]
    shared = tuple(sorted(frozenset.intersection(*own))) if own else ()
    everything = answers.members if answers.members is not None else np.arange(len(answers.truth))
    found = []
    for name, rows, part, classes, why in zip(grouping.groups, parts, taken, usable, small, strict=True):
        why = why or ("" if shared else "it shares no class that is common enough with the others")
        figures = main_figures(part, shared or None)
        found.append(_Judged(name, part, np.unique(everything[rows]), classes, figures, why))
    return found, shared or answers.task.scored


def _usable(part: Answers) -> frozenset[int]:
    """The scored classes that enough patients (or images) have and have not."""
    having, without = part.sides()
    return frozenset(k for k in part.task.scored if min(having[k], without[k]) >= FEWEST)


def _too_small(part: Answers, usable: frozenset[int], whole: Answers) -> str:
    """Why a subgroup is too small to be compared; empty where it is not."""
    task, unit = part.task, f"{part.unit}s"
    if 2 * len(usable) >= max(1, len(_usable(whole))) and usable:
        return ""
    having, without = part.sides()
    if task.positive_class is not None:
        k = task.scored[0]
        lone = having[k] == 1
        return f"{having[k]:,} {part.unit if lone else unit} with {task.positive_class} and {without[k]:,} without"
    words = "classes" if task.exclusive else "labels"
    return f"{len(usable)} of {len(task.scored)} {words} have {FEWEST} {unit} or more"


def _largest(name: str, pairs: Sequence[tuple[_Judged, _Judged]], level: float) -> dict[str, Any] | None:
    """The largest gap in a figure between two of these; None where there are no two with this figure."""
    compared = {one.name: one.figures[name] for pair in pairs for one in pair}
    joint = intervals(list(compared.values()), level)
    ends = {one: (figure.value, *each) for (one, figure), each in zip(compared.items(), joint, strict=True)}
    found = []
    for pair in pairs:
        one, other = sorted(pair, key=lambda each: -ends[each.name][0])
        low, high = gap_interval(ends[one.name], ends[other.name], _correlation(one, other, name))
        value = ends[one.name][0] - ends[other.name][0]
        if np.isfinite([value, low, high]).all():
            found.append((value, low, high, one.name, other.name))
    if not found:
        return None
    value, _, _, most, least = max(found, key=lambda gap: gap[0])
    return {
        "value": value,
        "low": max(0.0, *(max(low, -high) for _, low, high, _, _ in found)),
        "high": max(max(high, -low) for _, low, high, _, _ in found),
        "most": most,
        "least": least,
        "sure": [[one, other] for _, low, _, one, other in found if low > 0],
    }


def gap_interval(
    first: tuple[float, float, float], second: tuple[float, float, float], correlation: float
) -> tuple[float, float]:
    """Of ``first - second``, by Zou and Donner from the intervals of each; NaN where one has none.

    Args:
        first, second: a figure and the ends of its interval.
        correlation: of the two figures, in [-1, 1].
    """
    (one, low, high), (other, least, most) = first, second

    def reach(ours: float, theirs: float) -> float:
        return float(np.sqrt(max(0.0, ours**2 + theirs**2 - 2 * correlation * ours * theirs)))

    return one - other - reach(one - low, most - other), one - other + reach(high - one, other - least)


def _correlation(first: _Judged, second: _Judged, name: str) -> float:
    """Of two figures over the patients who are in both subgroups."""
    _, ours, theirs = np.intersect1d(first.units, second.units, assume_unique=True, return_indices=True)
    one, other = first.figures[name], second.figures[name]
    if not len(ours) or not one.variance > 0 or not other.variance > 0:
        return 0.0
    shared = float((one.moves[ours] * other.moves[theirs]).sum())
    return float(np.clip(shared / np.sqrt(one.variance * other.variance), -1, 1))


def _told(one: _Judged) -> dict[str, Any]:
    task, answers = one.answers.task, one.answers
    main, said = one.figures[task.selection_metric], to_dict(one.figures)
    low, high = (said[task.selection_metric][end] for end in ("low", "high"))
    positives = None
    if task.kind != "multiclass":
        positives = int(task.positive(answers.truth.astype(np.float64)).sum())
    return {
        "name": one.name,
        "images": len(answers.truth),
        "patients": None if answers.members is None else len(one.units),
        "positives": positives,
        "small": one.small,
        "wide": low is not None and high is not None and high - low > WIDE * (main.end - main.start),
        **said,
    }

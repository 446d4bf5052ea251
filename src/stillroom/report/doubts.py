"""Warnings that belong on top of the page: why the student's figures may not hold, or its teacher was none."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

from stillroom.evaluation.roles import CONTROL, PROBE_OF_TEACHER, STUDENT, TEACHER, noun
from stillroom.report.finding import Finding
from stillroom.report.numbers import METRICS, Estimate, count, finite, fixed
from stillroom.report.record import Record
from stillroom.report.subgroups import gap_findings
from stillroom.shown import counted

BEYOND_LUCK = 2.576
"""A difference of so many standard errors is met by luck in one of a hundred runs."""
FEW_IMAGES, FEW_PATIENTS = 10, 5
_NAMED = 3


def doubts(record: Record) -> list[Finding]:
    """Findings of tone bad, or neutral where luck may be behind them, as far as they apply."""
    found = (_disagreement(record), _poor_teacher(record), _few_images(record))
    return [*(finding for finding in found if finding), *gap_findings(record)]


def _disagreement(record: Record) -> Finding | None:
    """Validation and test are further apart than both splits' own errors explain, at the level of 1 %.

    Their errors are those of the intervals, and each is at least what the other's says for its own number of images: 30
    images that are all told apart show no error of their own.
    """
    role = record.handed_over
    first, second = record.chosen(role, "validation"), record.chosen(role)
    a, b = _error(first), _error(second)
    m, n = _units(record.validation.get(role) or {}), _units(record.test[role])
    if first is None or second is None or a is None or b is None or not m or not n:
        return None
    a, b = max(a, b * sqrt(n / m)), max(b, a * sqrt(m / n))
    gap, most = abs(first.value - second.value), BEYOND_LUCK * sqrt(a**2 + b**2)
    if gap <= most:
        return None
    whose = f"{METRICS[record.task.selection_metric]} of the {noun(role)}"
    evidence = f"{whose} on validation {first.text()}, on the test images {second.text()}: "
    evidence += f"{fixed(gap)} apart, where luck explains {fixed(most)} (1 % level). "
    evidence += (
        "The splits are not alike, or too much was chosen on validation: audit both before you trust either figure."
    )
    return Finding("bad", "Validation and test disagree beyond luck.", evidence)


def _units(figures: Mapping[str, Any]) -> int:
    """Patients where they are known, else images; 0 where not even these are."""
    return int(figures.get("patients") or figures.get("images") or 0)


def _error(figure: Estimate | None) -> float | None:
    """The standard error behind a 95 % interval."""
    return (
        None if figure is None or figure.low is None or figure.high is None else (figure.high - figure.low) / (2 * 1.96)
    )


def _poor_teacher(record: Record) -> Finding | None:
    """The teacher is worse than its control or its probe on the test images, beyond the interval; or below it on validation
    and test alike, which of two networks that are equally good happens in one of four runs: then it is no better."""
    metric, teacher, seen = record.task.selection_metric, record.chosen(TEACHER), record.chosen(TEACHER, "validation")
    better, beyond = [], []
    for role in (CONTROL, PROBE_OF_TEACHER):
        other, other_seen = record.chosen(role), record.chosen(role, "validation")
        if teacher is None or other is None or teacher.value >= other.value:
            continue
        clear = other.low is not None and teacher.value < other.low
        both = seen is not None and other_seen is not None and seen.value < other_seen.value
        if clear or both:
            better.append((role, other))
            beyond += [role] * clear
    if teacher is None or not better:
        return None
    first = beyond[0] if beyond else better[0][0]
    who = f"the {noun(CONTROL)}" if first == CONTROL else "its own linear probe"
    named = ", ".join(f"{noun(role)} {figure.text()}" for role, figure in better)
    evidence = f"{METRICS[metric]} on the test images: teacher {teacher.text()}, {named}. "
    if beyond:
        evidence += "To be as good as such a teacher is no praise; another teacher may help."
        return Finding("bad", f"The teacher is worse than {who}.", evidence)
    evidence += (
        "It is below on validation too. To be as good as such a teacher is little praise; a stronger one may help."
    )
    return Finding("neutral", f"The teacher is no better than {who}.", evidence)


def _few_images(record: Record) -> Finding | None:
    """Classes with too few test images (or patients) to carry a mean."""
    few = []
    for name, values in (record.test[STUDENT].get("per_class") or {}).items():
        if said := _few(values):
            few.append(f"{name} ({said})")
    if not few:
        return None
    named = ", ".join(few[:_NAMED]) + (f" and {len(few) - _NAMED} more" if len(few) > _NAMED else "")
    metric = METRICS[record.task.selection_metric]
    text = f"{'The ' if len(record.task.scored) == 1 else 'The mean '}{metric} rests on too few test images of {named}."
    return Finding("bad", text, "One image more or less moves such a figure; --folds tests every image once.")


def _few(values: Mapping[str, Any]) -> str:
    """How many, where they are too few; empty where they are enough, or none at all: such a class is in no mean."""
    support, patients = values.get("support"), values.get("patients")
    if not finite(support) or support == 0:
        return ""
    if finite(patients) and patients < FEW_PATIENTS:
        return f"{counted(int(support), 'image', 'images')} of {counted(int(patients), 'patient', 'patients')}"
    return count(support) if support < FEW_IMAGES else ""

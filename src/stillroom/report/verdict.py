"""The verdict itself: is the student better than guessing, as good as its teacher, better than its control?

A claim of praise needs several trainings (`luck` of metrics.json): the interval of one training covers the test images, and
a difference that such an interval excludes is quite often the luck of two seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillroom.evaluation.roles import CONTROL, MAJORITY, STUDENT, TEACHER, noun
from stillroom.report.finding import Finding, Tone
from stillroom.report.numbers import (
    CHANCE,
    METRICS,
    estimate,
    finite,
    p_value,
    plain,
    true_minus,
)
from stillroom.report.record import Record, sensitivities
from stillroom.shown import counted

LUCK = "One training each: a difference of this size can be luck."
MEASURE_LUCK = "--repeats or --folds measures that luck."


def claim(record: Record) -> dict[str, str]:
    """What the recipe adds to its control (``adds``), what that is (``control``), and the student's ``origin``."""
    if found := record.manifest.get("claim"):
        return dict(found)
    return {"adds": "", "control": "", "origin": "Trained without a teacher"}


def absolute(record: Record, role: str = STUDENT) -> Finding:
    """Whether a network is better than guessing, in rank and in decisions, and which class it finds least.

    Decisions are compared with those of the commonest class for the student alone: of the others no run holds a comparison.
    """
    metric = record.task.selection_metric
    figure, who = record.chosen(role), noun(role)
    if figure is None:
        text = f"{METRICS[metric]} is not defined on these test images."
        return Finding("bad", f"Whether the {who} is better than guessing is not known.", text)
    evidence = f"{METRICS[metric]} on the test images {figure.text()}; guessing scores {plain(CHANCE[metric])}."
    if worst := _worst_class(record, role):
        evidence += f" {worst}"
    if _at_chance(record, role):
        return Finding("bad", f"The {who} is not shown to be better than guessing.", evidence)
    comparison = record.comparison(MAJORITY) if role == STUDENT else None
    if (gain := estimate((comparison or {}).get("accuracy_difference"))) and gain.ends[0] <= 0:
        accuracy, share = (estimate(record.test[role].get("accuracy")) for role in (STUDENT, MAJORITY))
        if accuracy and share:
            always = (
                "always answering the commonest class" if record.task.exclusive else "always giving the same answer"
            )
            text = f"The student's decisions are not shown to be better than {always}."
            figures = f"Accuracy {accuracy.text()} against {share.text()}: difference {gain.text(signed=True)}."
            return Finding("bad", text, f"{figures} {evidence}")
    if figure.low is None:
        return Finding("neutral", f"Whether the {who} is better than guessing is open: no interval.", evidence)
    if never := [name for name, found in sensitivities(record, role).items() if found.value == 0]:
        named = ", ".join(never[:3]) + (f" and {len(never) - 3} more" if len(never) > 3 else "")
        return Finding("bad", f"The {who} ranks better than guessing, but never finds {named}.", evidence)
    return Finding("good", f"The {who} is better than guessing.", evidence)


def against_teacher(record: Record) -> Finding | None:
    """Whether the student is as good as its teacher; None without one."""
    comparison = record.comparison(TEACHER)
    if comparison is None:
        if TEACHER not in record.test:
            return None
        return Finding("neutral", "Student and teacher were not compared.", "This run holds no paired comparison.")
    return _capped(_sobered(_tempered(_teacher(comparison), comparison), record, TEACHER), record, TEACHER)


def against_control(record: Record) -> Finding:
    """Whether what the recipe adds helped."""
    adds, control = claim(record)["adds"], claim(record)["control"]
    if not adds:
        return Finding("neutral", "This run had no teacher.", "The student learned from the labels alone.")
    comparison = record.comparison(CONTROL)
    if comparison is None:
        return Finding("neutral", f"Whether {adds} helped is not known.", f"No control was trained: {control}.")
    finding = _control(adds, comparison, f"{_evidence(comparison, CONTROL)} The control is {control}.")
    finding = _sobered(_tempered(finding, comparison), record, CONTROL)
    difference = estimate(comparison.get("difference"))
    if record.over_trainings(CONTROL) or difference is None or difference.low is None:
        return finding
    evidence = f"{finding.evidence} The interval covers the test images, not the luck of training; {MEASURE_LUCK}"
    if difference.ends[0] <= 0 <= difference.ends[1]:
        return Finding(finding.tone, finding.headline, f"{evidence} {LUCK}")
    better = "student" if difference.value > 0 else "control"
    tone: Tone = "neutral" if finding.tone == "good" else finding.tone
    rest = finding.headline.partition(" But ")
    text = f"The {better} is ahead; whether {adds} {'helped' if better == 'student' else 'did harm'} is open. {LUCK}"
    return Finding(tone, text + (f" But {rest[2]}" if rest[2] else ""), evidence)


def _evidence(comparison: Mapping[str, Any], other: str) -> str:
    statement = true_minus(str(comparison.get("statement") or "").strip())
    figure = estimate(comparison.get("difference"))
    if not statement and figure:
        metric = METRICS.get(str(comparison.get("metric")), str(comparison.get("metric") or "figure"))
        statement = f"{metric}, student − {other}: {figure.text(signed=True)}."
    tests = [f"paired test {p_value(comparison['p_value'])}"] if finite(comparison.get("p_value")) else []
    if accuracy := estimate(comparison.get("accuracy_difference")):
        # The p-value of this very interval: McNemar's, exact and cautious, may be above 5 % beside one without zero.
        tests += [
            ", ".join(filter(None, (f"accuracy {accuracy.text(signed=True)}", p_value(comparison.get("accuracy_p")))))
        ]
    details = "; ".join(tests)
    return f"{statement} {details[:1].upper()}{details[1:]}." if details else statement


def _teacher(comparison: Mapping[str, Any]) -> Finding:
    evidence, margin = _evidence(comparison, TEACHER), comparison.get("margin")
    difference = estimate(comparison.get("difference"))
    if difference is None or difference.low is None or difference.high is None:
        return Finding("neutral", "Whether the student is as good as its teacher is not known.", evidence)
    if comparison.get("superior"):
        return Finding("good", "The student does better than its teacher.", evidence)
    if comparison.get("non_inferior") and difference.high < 0:
        text = f"The student is a little worse than its teacher, by less than the margin of {plain(margin)}."
        return Finding("good", text, evidence)
    if comparison.get("non_inferior"):
        text = f"The student is as good as its teacher, to within the margin of {plain(margin)}."
        return Finding("good", text, evidence)
    if finite(margin) and difference.high < -margin:
        text = f"The student is worse than its teacher by more than the margin of {plain(margin)}."
        return Finding("bad", text, evidence)
    if difference.high < 0:
        text = "The student is worse than its teacher; whether by more than the margin is open."
        return Finding("bad", text, evidence)
    text = f"The student is not shown to be as good as its teacher, to within the margin of {plain(margin)}."
    return Finding("neutral", text, evidence)


def _control(adds: str, comparison: Mapping[str, Any], evidence: str) -> Finding:
    difference = estimate(comparison.get("difference"))
    if difference is None or difference.low is None or difference.high is None:
        return Finding("neutral", f"Whether {adds} helped is not known.", evidence)
    subject = adds[:1].upper() + adds[1:]
    if difference.low > 0:
        return Finding("good", f"{subject} helped.", evidence)
    if difference.high < 0:
        return Finding("bad", f"{subject} did harm: the control is better.", evidence)
    return Finding("neutral", f"{subject} did not measurably help.", evidence)


def _tempered(finding: Finding, comparison: Mapping[str, Any]) -> Finding:
    """The claim rests on the selection metric: where accuracy speaks against it, the headline says so."""
    accuracy = estimate(comparison.get("accuracy_difference"))
    if finding.tone == "bad" or accuracy is None or accuracy.high is None or accuracy.high >= 0:
        return finding
    tone: Tone = "neutral" if finding.tone == "good" else "bad"
    return Finding(tone, f"{finding.headline} But the student's accuracy is lower.", finding.evidence)


def _sobered(finding: Finding, record: Record, other: str) -> Finding:
    """No praise for a comparison that guessing would pass: with the teacher, or of a student that only guesses."""
    guessing = [role for role in (STUDENT, TEACHER) if _at_chance(record, role)]
    if finding.tone != "good" or not guessing or (other == CONTROL and STUDENT not in guessing):
        return finding
    if other == CONTROL:
        guessing = [STUDENT]
    who = f"the {guessing[0]} is not" if len(guessing) == 1 else "neither is"
    return Finding("neutral", f"{finding.headline} But {who} shown to be better than guessing.", finding.evidence)


def _capped(finding: Finding, record: Record, other: str) -> Finding:
    """No praise from one training each."""
    if record.over_trainings(other):
        return finding
    evidence = f"{finding.evidence} The interval covers the test images, not the luck of training."
    return Finding("neutral" if finding.tone == "good" else finding.tone, finding.headline, evidence)


def _at_chance(record: Record, role: str) -> bool:
    """Whether the role's selection metric could be that of guessing, or is even below."""
    figure = record.chosen(role)
    return figure is not None and figure.ends[0] <= CHANCE[record.task.selection_metric]


def _worst_class(record: Record, role: str) -> str:
    """The class that a network finds least, with its sensitivity; empty where none is known."""
    found = sensitivities(record, role)
    if not found:
        return ""
    name = min(found, key=lambda name: found[name].value)
    values = record.test[role]["per_class"][name]
    of = counted(int(values["support"]), "image", "images") if finite(values.get("support")) else "its images"
    if finite(values.get("patients")):
        of += f" of {counted(int(values['patients']), 'patient')}"
    what = "Worst class" if record.task.exclusive else "Worst label"
    return f"{what}: {name}, found in {found[name].text()} of {of} (sensitivity)."

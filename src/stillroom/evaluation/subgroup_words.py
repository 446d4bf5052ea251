"""What is said of subgroups, in sentences that terminal, report and model card share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stillroom.evaluation.intervals import LEVEL
from stillroom.task import Task

WORDS = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "quadratic_kappa": "quadratic kappa",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
_NONE: dict[str, Any] = {"columns": []}


def statements(column: Mapping[str, Any]) -> list[str]:
    """Of one column: gaps that are there, gaps that are not shown and how large they may be, and what cannot be judged."""
    name, gaps = column["name"], column["gaps"]
    said = [_sure(name, figure, gap, column["groups"]) for figure, gap in gaps.items() if gap["sure"]]
    open_gaps = {figure: gap for figure, gap in gaps.items() if not gap["sure"]}
    if open_gaps:
        figures = listed([WORDS[figure] for figure in open_gaps], "or")
        largest = listed([f"{gap['high']:.2f}" for gap in open_gaps.values()])
        words = "one of up to" if len(open_gaps) == 1 else "gaps of up to"
        said.append(f"By {name} no gap in {figures} is shown; {words} {largest} cannot be ruled out.")
    small = [f"{group['name']} ({group['small']})" for group in column["groups"] if group["small"]]
    if small:
        said.append(f"By {name} too small to judge, and not compared: {'; '.join(small)}.")
    if not gaps:
        said.append(f"By {name} nothing can be compared: no two subgroups are large enough.")
    wide = [group["name"] for group in column["groups"] if group["wide"] and not group["small"]]
    if wide:
        said.append(f"By {name} the intervals of {listed(wide)} are so wide that their figures tell little.")
    return said


def notes_on(task: Task, found: Mapping[str, Any], fewest: int) -> list[str]:
    """How subgroups are judged, for those who read the figures."""
    unit = f"{found['unit']}s"
    of = f"with {task.positive_class}" if task.positive_class else "of a class" if task.exclusive else "with a label"
    main = WORDS[found["figure"]]
    notes = [
        f"A subgroup of fewer than {fewest} {unit} {of}, or fewer than {fewest} without, is too small to judge: it is shown "
        "and not compared."
    ]
    if found["comparisons"]:
        family = found["family"]
        more = "" if family == found["comparisons"] else f" ({family} with those of the report's other part)"
        notes.append(
            f"{found['comparisons']} gaps in {main}, sensitivity and specificity are compared{more}: their intervals are "
            f"wide enough to hold all together in {100 * LEVEL:.0f} % of the cases, so that a gap is claimed in at most "
            f"{100 * (1 - LEVEL):.0f} % of the reports without one. The largest gap seen is above 0 even where there is none."
        )
        notes.append(
            "Accuracy is not compared, for it goes with how many are ill. Subgroups differ in more than their name: a gap "
            "is no cause."
        )
    for column in found["columns"]:
        left = [name for name in _scored(task) if name not in column["classes"]]
        if left and column["gaps"]:
            notes.append(f"By {column['name']} means leave out {listed(left)}: too rare in one of the subgroups.")
    return notes


def warnings_of(found: Mapping[str, Any]) -> list[str]:
    """The statements that a reader must not miss: gaps that are there and subgroups too small."""
    return [
        text
        for column in found["columns"]
        for text in column["statements"]
        if " differs by " in text or " too small to judge" in text or " nothing can be compared" in text
    ]


def told_in_short(metrics: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """A run's subgroups in a few sentences, each with whether it must not be missed: all of those that the user named, and of
    patients and the quality of images what matters most."""
    said = []
    patients = metrics.get("by_patient") or {}
    for figures in list((patients.get("figures") or {}).values())[:1]:
        shown = [f"{WORDS[name]} {_figure(figure)}" for name, figure in figures.items() if figure["value"] is not None]
        said.append((False, f"By patient ({patients['patients']:,}): {', '.join(shown)}."))
    if patients.get("left_out"):
        said += [(True, note) for note in patients["notes"] if "left out" in note or "labels are of images" in note]
    groups, quality = metrics.get("groups") or _NONE, metrics.get("quality") or _NONE
    urgent = warnings_of(groups)
    said += [(text in urgent, text) for column in groups["columns"] for text in column["statements"]]
    return said + [(True, text) for text in warnings_of(quality) if " differs by " in text]


def listed(words: Sequence[str], last: str = "and") -> str:
    """``a, b and c``."""
    *first, final = words
    return f"{', '.join(first)} {last} {final}" if first else final


def _sure(name: str, figure: str, gap: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> str:
    values = {group["name"]: group[figure]["value"] for group in groups}
    word = WORDS[figure]
    ends = f"{values[gap['most']]:.3f} in {gap['most']} and {values[gap['least']]:.3f} in {gap['least']}"
    text = (
        f"{word[:1].upper()}{word[1:]} differs by {name}: {ends}. The largest gap is {gap['value']:.3f} "
        f"({gap['low']:.3f} to {gap['high']:.3f})."
    )
    others = [pair for pair in gap["sure"] if pair != [gap["most"], gap["least"]]]
    if len(others) == len(gap["sure"]):
        return f"{text} Surely different are {others[0][0]} and {others[0][1]}."
    return text


def _figure(figure: Mapping[str, float | None]) -> str:
    ends = "" if figure["low"] is None else f" ({figure['low']:.3f}-{figure['high']:.3f})"
    return f"{figure['value']:.3f}{ends}"


def _scored(task: Task) -> list[str]:
    return [task.classes[k] for k in task.scored]

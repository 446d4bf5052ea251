"""The grid's results as CSV, Markdown and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from stillroom.bench.collect import SHOWN, Outcome, System, row
from stillroom.bench.published import Published, caveats, published
from stillroom.bench.statistics import Mean
from stillroom.report.numbers import METRICS, fixed

READING = (
    "Mean ± standard deviation over seeds, on the test split, and a 95 % interval that holds the luck of training "
    "and the luck of the test images: its variance is that of the mean over seeds plus what the test images "
    "(whole patients where they are known) move it by, with Welch and Satterthwaite's degrees of freedom. With one seed it "
    "holds the images' part alone.",
    "A difference is the system minus its control of the same data, student and seed, on the same test images, in the "
    "figure that picks the epoch. The control is the baseline, or the recipe that is named in brackets. A system beats its "
    "control where the whole interval lies above zero. The intervals are not adjusted for the number of comparisons: of "
    "twenty systems that do nothing, one is expected to look different.",
    "F1 is the mean over classes; for two classes it is the positive class's.",
)


def csv_table(outcomes: Sequence[Outcome]) -> str:
    """One row per cell with every key and figure; empty where there is none."""
    rows = [row(outcome) for outcome in outcomes]
    columns = list(dict.fromkeys(name for found in rows for name in found))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown(outcomes: Sequence[Outcome], found: Sequence[System], over_sets: dict[str, Any] | None) -> str:
    """The summary that table.md holds."""
    parts = ["# Recipes on a grid", *READING]
    for data, systems in by_data(found).items():
        source = source_of(outcomes, data)
        parts += [f"## {escaped(data)}", _markdown(*summary(systems))]
        parts += [escaped(text) for text in remarks(systems)]
        if rows := published(source):
            parts += ["Published figures, not measured here:", _markdown(*published_summary(rows))]
            parts += ["\n".join(f"- {text}" for text in caveats(source))]
    if over_sets:
        parts += ["## Over data sets", *over_sets_lines(over_sets)]
    if lines := failures(outcomes):
        parts += ["## Failed cells", "\n".join(f"- {escaped(cell)}: {escaped(reason)}" for cell, reason in lines)]
    return "\n\n".join(parts) + "\n"


def lines(found: Sequence[System]) -> list[str]:
    """The differences in plain text, a line per system below its data set's."""
    text = []
    for data, systems in by_data(found).items():
        text.append(data)
        for system in systems:
            line = f"  {system.title}: done {state(system)}"
            if system.metric:
                line += f"; {METRICS[system.metric]} {mean_text(system.means[system.metric])}"
            if system.difference:
                line += f"; {difference_text(system.difference)} against its control: {system.verdict}"
            text.append(line)
    return text


def summary(systems: Sequence[System]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of one data set's table, as text."""
    names = figure_names(systems)
    metric = next((METRICS[system.metric] for system in systems if system.metric), "figure")
    header = ["Recipe", "Teacher", "Student", "Seeds", *(METRICS[name] for name in names)]
    header += [f"{metric}, difference to its control", "Verdict", "MB"]
    marked = marks(systems)
    rows = [
        [
            system.key[1] + marked.get(system.key, ""),
            system.key[2] or "none",
            system.key[3],
            state(system),
            *(mean_text(system.means.get(name)) for name in names),
            difference_text(system.difference),
            verdict_text(system),
            fixed(system.size_mb, 1),
        ]
        for system in systems
    ]
    return header, rows


def verdict_text(system: System) -> str:
    """What the difference to the control says, and which control it is where it is not the baseline."""
    if system.is_control:
        return "the control"
    return f"{system.verdict} (control: {system.against})" if system.against else system.verdict


def marks(systems: Sequence[System]) -> dict[tuple[str, ...], str]:
    """The footnote's mark by the key of each system whose comparison needs a remark."""
    numbers: dict[str, int] = {}
    for system in systems:
        if remark := _remark(system):
            numbers.setdefault(remark, len(numbers) + 1)
    return {s.key: str(numbers[_remark(s)]).translate(_SUPERSCRIPTS) for s in systems if _remark(s)}


def remarks(systems: Sequence[System]) -> list[str]:
    """The footnotes, each with its mark."""
    found = marks(systems)
    return list(dict.fromkeys(f"{found[s.key]} {_remark(s)}" for s in systems if s.key in found))


def _remark(system: System) -> str:
    said = []
    if system.unlike:
        said.append(f"{system.key[1]} differs from its control also in {', '.join(system.unlike)}.")
    if system.own_control:
        said.append(f"The control that {system.key[1]} itself would train is another one: {system.own_control}.")
    return " ".join(said)


_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def published_summary(rows: Sequence[Published]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the published figures, as text."""
    header = ["System", "AUC", "Accuracy", "Source"]
    return header, [
        [found.system, *(_with_sd(*pair) for pair in _pairs(found)), found.source]
        for found in rows
    ]  # fmt: skip


def figure_names(systems: Sequence[System]) -> list[str]:
    """The figures that a data set's table shows."""
    found = list(dict.fromkeys(name for system in systems for name in system.means))
    return found or list(SHOWN)


def by_data(found: Sequence[System]) -> dict[str, list[System]]:
    """Systems by their data set's label."""
    groups: dict[str, list[System]] = {}
    for system in found:
        groups.setdefault(system.key[0], []).append(system)
    return groups


def source_of(outcomes: Sequence[Outcome], data: str) -> str:
    """The source behind a data set's label."""
    return next(outcome.cell.settings.source for outcome in outcomes if outcome.cell.data == data)


def failures(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Title and reason of each failed cell."""
    return [(outcome.cell.title, outcome.reason) for outcome in outcomes if outcome.state == "failed"]


def over_sets_lines(found: dict[str, Any]) -> list[str]:
    """Ranks and tests over data sets in words, a paragraph each."""
    ranked = sorted(found["ranks"].items(), key=lambda pair: pair[1])
    lines = [
        f"Mean rank over {found['sets']} data sets, 1 is best: " + "; ".join(f"{k} {v:.2f}" for k, v in ranked) + "."
    ]
    if found["friedman_p"] is not None:
        lines.append(
            f"Friedman's test that all systems rank alike: p = {found['friedman_p']:.3g}. By Nemenyi's test, mean ranks that "
            f"differ by less than {found['critical_difference']:.2f} are not told apart at 5 %."
        )
    for system, test in found["wilcoxon"].items():
        lines.append(
            f"{system} against its control, Wilcoxon's signed ranks over data sets: p = {test['p']:.3g}, "
            f"{test['holm']:.3g} after Holm's adjustment."
        )
    return lines + ([found["note"]] if found["note"] else [])


def to_json(outcomes: Sequence[Outcome], found: Sequence[System], over_sets: dict[str, Any] | None) -> dict[str, Any]:
    """Everything that the tables hold, as JSON values; NaN becomes null."""
    return _plain(
        {
            "cells": [row(outcome) for outcome in outcomes],
            "systems": [
                dict(zip(("data", "recipe", "teacher", "student"), system.key, strict=True))
                | {key: value for key, value in asdict(system).items() if key != "key"}
                for system in found
            ],
            "over_sets": over_sets,
        }
    )


def state(system: System) -> str:
    """How many of a system's seeds are done: ``3``, or ``1 of 3, 2 failed``."""
    text = str(system.done) if system.done == system.seeds else f"{system.done} of {system.seeds}"
    return f"{text}, {system.failed} failed" if system.failed else text


def mean_text(mean: Mean | None) -> str:
    """``0.913 ± 0.012 (0.887 to 0.936)``."""
    if mean is None:
        return "n/a"
    text = fixed(mean.value)
    if mean.sd is not None:
        text += f" ± {fixed(mean.sd)}"
    return text if mean.low is None else f"{text} ({fixed(mean.low)} to {fixed(mean.high)})"


def difference_text(difference: Mean | None) -> str:
    """``+0.013 (−0.002 to +0.028)``, or nothing."""
    if difference is None:
        return ""
    text = fixed(difference.value, signed=True)
    if difference.low is None:
        return text
    return f"{text} ({fixed(difference.low, signed=True)} to {fixed(difference.high, signed=True)})"


def escaped(text: str) -> str:
    """``text`` for a cell of a Markdown table: one line, no bar that would end it."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in lines)


def _pairs(found: Published) -> list[tuple[float, float | None]]:
    return [(found.auc, found.auc_sd), (found.accuracy, found.accuracy_sd)]


def _with_sd(value: float, sd: float | None) -> str:
    return fixed(value) if sd is None else f"{fixed(value)} ± {sd:g}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value

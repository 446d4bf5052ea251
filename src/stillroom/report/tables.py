"""Every table of the report as plain data: the page renders it as HTML, the model card as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stillroom.data.table import SPLITS
from stillroom.evaluation.roles import SIMPLEST, STUDENT, noun
from stillroom.report.numbers import (
    LOWER_IS_BETTER,
    METRICS,
    MISSING,
    Estimate,
    count,
    duration,
    estimate,
    fixed,
    plain,
)
from stillroom.report.record import Record, title

Cell = str | Estimate
NARROW = "\u202f"  # a thin space that does not break


@dataclass(frozen=True)
class Grid:
    """A table. The first cell of each row is its header; the others line up with ``columns[1:]``.

    Attributes:
        long: the columns of sentences or long names, in a table of words rather than of figures; each takes a line of its
            own where the table becomes a list.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    long: tuple[str, ...] = ()


@dataclass(frozen=True)
class Confusion:
    """Counts of true class (rows) against predicted class (columns), and each count's share of its row."""

    role: str
    classes: tuple[str, ...]
    counts: list[list[int]]
    shares: list[list[float]]

    @property
    def longest(self) -> int:
        """Characters of the longest name."""
        return max(map(len, self.classes))


def results(record: Record) -> Grid:
    """Test figures with intervals: a metric per row, a network per column."""
    tests = record.test
    rows: list[tuple[Cell, ...]] = []
    for key, name in METRICS.items():
        if any(key in test for test in tests.values()):
            arrow = "↓" if key in LOWER_IS_BETTER else "↑"
            rows.append((f"{name}{NARROW}{arrow}", *(_figure(test.get(key)) for test in tests.values())))
    for key, name in (("images", "Test images"), ("patients", "Test patients")):
        if any(test.get(key) is not None for test in tests.values()):
            rows.append((name, *(count(test.get(key)) for test in tests.values())))
    mark = {record.handed_over: " (handed over)"} if record.handed_over != STUDENT else {}
    return Grid(("Figure", *(title(role) + mark.get(role, "") for role in tests)), rows)


def class_counts(record: Record) -> Grid | None:
    """Images per class and split, with the class's share of its split."""
    counted = (record.audit or {}).get("class_counts") or {}
    splits = [split for split in SPLITS if split in counted]
    if not splits:
        return None
    rows: list[tuple[Cell, ...]] = []
    for name in record.task.classes:
        cells = []
        for split in splits:
            number, total = counted[split].get(name, 0), sum(counted[split].values())
            cells.append(f"{number:,} ({number / total:.0%})" if total and record.task.exclusive else f"{number:,}")
        rows.append((name, *cells))
    if record.task.exclusive:
        rows.append(("All", *(f"{sum(counted[split].values()):,}" for split in splits)))
    return Grid(("Class" if record.task.exclusive else "Label", *(_split(split) for split in splits)), rows)


def per_class(record: Record) -> list[tuple[str, Grid]]:
    """Captions and tables: class by class the figures of what is handed over, and every network's AUC; empty without any."""
    figures = {role: test.get("per_class") or {} for role, test in record.test.items() if role not in SIMPLEST}
    role = record.handed_over
    classes = record.test[role].get("per_class") or {}
    if not classes:
        return []
    keys = [key for key in METRICS if key != "auc" and any(key in values for values in classes.values())]
    whom = noun(role) if role == STUDENT else f"{noun(role)}, which is handed over"
    own: list[tuple[Cell, ...]] = []
    areas: list[tuple[Cell, ...]] = []
    for name in record.task.classes:
        values = classes.get(name) or {}
        own.append((name, count(values.get("support")), *(_figure(values.get(key)) for key in keys)))
        areas.append((name, *(_figure((found.get(name) or {}).get("auc")) for found in figures.values())))
    return [
        (
            f"Test figures of the {whom}, each class against the rest, with 95 % intervals",
            Grid(("Class", "Test images", *(METRICS[key] for key in keys)), own),
        ),
        ("AUC of each class against the rest", Grid(("Class", *(f"AUC, {noun(other)}" for other in figures)), areas)),
    ]


def confusion(record: Record, role: str) -> Confusion | None:
    """Confusion matrix on the test split, for classes that exclude each other."""
    predictions = record.predictions
    if predictions is None or role not in predictions.probabilities or not record.task.exclusive:
        return None
    size = len(record.task.classes)
    truth = predictions.targets[predictions.test]
    decided = record.task.decide(predictions.probabilities[role][predictions.test])
    counts = np.bincount(truth * size + decided, minlength=size * size).reshape(size, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return Confusion(role, record.task.classes, counts.tolist(), shares.tolist())


def decisions(record: Record, role: str) -> Grid | None:
    """Right and wrong decisions at threshold 0.5, for labels that stand each for themselves."""
    predictions = record.predictions
    if predictions is None or role not in predictions.probabilities or record.task.exclusive:
        return None
    truth = predictions.targets[predictions.test].astype(bool)
    decided = record.task.decide(predictions.probabilities[role][predictions.test]).astype(bool)
    cells = (truth & decided, truth & ~decided, ~truth & decided, ~truth & ~decided)
    rows: list[tuple[Cell, ...]] = [
        (name, *(f"{int(cell[:, k].sum()):,}" for cell in cells)) for k, name in enumerate(record.task.classes)
    ]
    return Grid(("Label", "Found", "Missed", "False alarms", "Rightly not stated"), rows)


def efficiency(record: Record) -> Grid | None:
    """Size and speed of every network; latency as median with the 95th percentile in brackets."""
    networks = record.efficiency
    if not networks:
        return None
    batches = list(dict.fromkeys(batch for values in networks.values() for batch in values.get("latency_ms") or {}))
    rows: list[tuple[Cell, ...]] = []
    for name, values in networks.items():
        latency = values.get("latency_ms") or {}
        size = f"{fixed(values.get('size_mb'), 1)}"
        times = (_latency(latency.get(batch)) for batch in batches)
        rows.append((title(name), count(values.get("parameters")), count(values.get("macs")), size, *times))
    columns = (f"ms, {batch.replace('batch_', 'batch of ')}" for batch in batches)
    return Grid(("Network", "Parameters", "Multiply-adds", "MB", *columns), rows)


def kept(record: Record) -> tuple[str, Grid | None] | None:
    """What the run hands over and why, and the candidates for it; None for runs that chose nothing."""
    found = record.metrics.get("kept")
    if not found:
        return None
    rows: list[tuple[Cell, ...]] = [
        (
            title(candidate["role"]) + (" (handed over)" if candidate["role"] == found["role"] else ""),
            fixed(candidate.get("mb"), 1),
            fixed(candidate.get("validation")),
            "yes" if candidate.get("within") else "no",
        )
        for candidate in found.get("candidates") or ()
    ]
    sentence = f"The {noun(found['role'])}. {found.get('why') or ''}".strip()
    return sentence, Grid(("Candidate", "MB", f"On validation{NARROW}↑", "Within the budget"), rows) if rows else None


def pairs(found: Sequence[Mapping[str, Any]]) -> Grid:
    """Pairs of images that the audit found to be alike, a pair per row."""
    keys = ("first", "first_split", "first_label", "second", "second_split", "second_label", "kind")
    rows: list[tuple[Cell, ...]] = [
        (*(plain(pair.get(key)) for key in keys), fixed(pair.get("similarity"))) for pair in found
    ]
    return Grid(("Image", "Split", "Label", "Same as", "Split", "Label", "Kind", "Similarity"), rows, long=("Same as",))


def quarantined(files: Sequence[Mapping[str, Any]]) -> Grid:
    """Files that could not be read, and why."""
    rows: list[tuple[Cell, ...]] = [(plain(file.get("path")), plain(file.get("reason"))) for file in files]
    return Grid(("File", "Reason"), rows, long=("Reason",))


def durations(record: Record) -> Grid | None:
    """How long each stage took."""
    stages = record.manifest.get("durations_s") or {}
    rows: list[tuple[Cell, ...]] = [(stage.replace("_", " "), duration(seconds)) for stage, seconds in stages.items()]
    return Grid(("Stage", "Time"), rows) if rows else None


def facts(values: Any) -> list[tuple[str, str]]:
    """A mapping out of a file as pairs of key and text, sections flattened as ``training.lr``."""
    pairs = []
    for key, value in (values or {}).items():
        if isinstance(value, dict):
            pairs += [(f"{key}.{inner}", text) for inner, text in facts(value)]
        else:
            pairs.append((str(key), plain(value)))
    return pairs


def _figure(raw: Any) -> Cell:
    return estimate(raw) or MISSING


def _latency(times: dict[str, Any] | None) -> str:
    if not times:
        return MISSING
    tail = f" ({fixed(times['p95'], 1)})" if times.get("p95") is not None else ""
    return fixed(times.get("median"), 1) + tail


def _split(split: str) -> str:
    return {"train": "Training", "val": "Validation", "test": "Test"}[split]

"""Curves of the report: learning, ROC, and precision against recall; one panel each, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.evaluation.roles import MAJORITY, SIMPLEST
from stillroom.report.learning import kept_epoch, learners
from stillroom.report.numbers import METRICS
from stillroom.report.record import Record, in_order
from stillroom.report.style import CLASS_MARKERS, MARKERS, colour, dashes, marker, unit_axes
from stillroom.report.svg import class_colour, ink, render, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SMALL_PANELS = 20
_GRID = np.linspace(0, 1, 101)
Pick = Callable[[dict[str, Any]], Any]


def learning_curves(record: Record) -> Iterator[tuple[str, str]]:
    """Pairs of heading and drawing: training loss, the parts of the student's loss, the validation metric."""
    history, roles = record.history, learners(record)
    kept = {role: kept_epoch(record, role) for role in roles}
    if any(_number(entry.get("loss")) is not None for entry in history):
        yield (
            "Training loss",
            _curves("loss", "training loss", history, dict.fromkeys(roles), lambda entry: entry.get("loss")),
        )
    student = [entry for entry in history if entry.get("role") == "student"]
    parts = list(dict.fromkeys(part for entry in student for part in entry.get("losses") or {}))
    if len(parts) > 1:
        yield "Parts of the student's loss", _loss_parts(student, parts)
    named = [entry["val"]["metric"] for entry in history if (entry.get("val") or {}).get("metric")]
    if named:
        metric = METRICS.get(named[0], named[0])
        drawing = _curves(
            "val", f"validation {metric}", history, kept, lambda entry: (entry.get("val") or {}).get("value")
        )
        yield f"Validation {metric}", drawing


def _curves(name: str, what: str, history: list[dict[str, Any]], roles: Mapping[str, int | None], pick: Pick) -> str:
    """``roles`` with the epoch to mark, if any."""

    def paint(axes: Axes) -> None:
        others = [role for role in roles if role not in MARKERS]
        for role in roles:
            entries = [entry for entry in history if entry.get("role") == role]
            x, y = _points(entries, pick)
            own = class_colour(others.index(role)) if role in others else colour(role)
            mark = marker(role)
            axes.plot(x, y, color=own, linestyle=dashes(role), marker=mark if len(x) == 1 else None)
            if (marked := roles[role]) is not None and marked in x:
                axes.plot(marked, y[x.index(marked)], mark, color=own, markersize=7)
            if role in others:
                axes.plot([], [], color=own, linestyle=":", label=short(role.replace("_", " "), 16))
        _epochs(axes, what)
        if others:
            axes.legend(frameon=False, fontsize=10)

    return render(f"curve-{name}", f"Learning curves: {what} per epoch for {', '.join(roles)}.", (330, 240), paint)


def _loss_parts(student: list[dict[str, Any]], parts: list[str]) -> str:
    def paint(axes: Axes) -> None:
        for number, part in enumerate(parts):
            x, y = _points(student, _part_of(part))
            mark = CLASS_MARKERS[number % len(CLASS_MARKERS)]
            every = 0.25 if len(x) > 1 else None  # a share of a line that has no length marks nothing
            line = axes.plot(x, y, color=class_colour(number), marker=mark, markersize=5, markevery=every)[0]
            line.set_label(short(part, 16))
        _epochs(axes, "weighted loss")
        axes.legend(frameon=False, fontsize=10)

    return render("curve-parts", f"The student's loss by part per epoch: {', '.join(parts)}.", (330, 240), paint)


def _part_of(name: str) -> Pick:
    return lambda entry: (entry.get("losses") or {}).get(name)


def _points(entries: list[dict[str, Any]], pick: Pick) -> tuple[list[float], list[float]]:
    pairs = [(entry["epoch"], _number(pick(entry))) for entry in entries]
    return [x for x, y in pairs if y is not None], [y for _, y in pairs if y is not None]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _epochs(axes: Axes, what: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel(what)


def roc_and_pr(record: Record) -> Iterator[tuple[str, str]]:
    """Pairs of heading and drawing: ROC and precision-recall, averaged over classes or of the positive one."""
    truth, probabilities = _test(record)
    usable = _usable(record, truth)
    if not usable:
        return
    if len(record.task.scored) == 1:
        of = short(record.task.classes[usable[0]])
    else:
        of = f"mean of {len(usable)} {'classes' if record.task.exclusive else 'labels'}"
    curves = {role: (_mean(truth, p, usable, _roc), _mean(truth, p, usable, _pr)) for role, p in probabilities.items()}
    roles = ", ".join(curves)
    prevalence = float(truth[:, usable].mean())

    def paint_roc(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=ink("muted"), linewidth=0.9, linestyle=":")
        unit_axes(axes, "1 − specificity", "sensitivity")
        _overlay(axes, {role: curve for role, (curve, _) in curves.items()})

    def paint_pr(axes: Axes) -> None:
        axes.axhline(prevalence, color=ink("muted"), linewidth=0.9, linestyle=":")
        unit_axes(axes, "recall (sensitivity)", "precision")
        _overlay(axes, {role: curve for role, (_, curve) in curves.items()})

    yield f"ROC, {of}", render("roc", f"ROC curves, {of}, for {roles}.", (330, 300), paint_roc)
    yield (
        f"Precision and recall, {of}",
        render("pr", f"Precision-recall curves, {of}, for {roles}.", (330, 300), paint_pr),
    )


def roc_per_class(record: Record) -> Iterator[tuple[str, str]]:
    """Pairs of class name and small ROC drawing, for tasks of more than two classes.

    Of more than :data:`MAX_SMALL_PANELS` classes only those which the student tells apart least are drawn.
    """
    truth, probabilities = _test(record)
    usable = _usable(record, truth)
    if len(record.task.scored) == 1 or "student" not in probabilities:
        return
    if len(usable) > MAX_SMALL_PANELS:
        area = {k: np.trapezoid(_roc(truth[:, k], probabilities["student"][:, k]), _GRID) for k in usable}
        usable = sorted(sorted(usable, key=lambda k: area[k])[:MAX_SMALL_PANELS])
    for k in usable:
        shown = {role: p for role, p in probabilities.items() if role not in SIMPLEST}
        curves = {role: _roc(truth[:, k], p[:, k]) for role, p in shown.items()}

        def paint(axes: Axes, curves: dict[str, np.ndarray] = curves) -> None:
            axes.plot([0, 1], [0, 1], color=ink("muted"), linewidth=0.8, linestyle=":")
            unit_axes(axes, "", "")
            axes.set_xticks([0, 0.5, 1], ["0", "", "1"])
            axes.set_yticks([0, 0.5, 1], ["0", "", "1"])
            _overlay(axes, curves)

        name = record.task.classes[k]
        yield name, render(f"roc-{k}", f"ROC curves of {name} for {', '.join(curves)}.", (170, 160), paint)


def _test(record: Record) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    predictions = record.predictions
    if predictions is None or not predictions.test.any():
        return np.zeros((0, len(record.task.classes)), dtype=np.uint8), {}
    truth = record.task.one_hot(predictions.targets[predictions.test])
    drawn = {role: values for role, values in predictions.probabilities.items() if role != MAJORITY}
    return truth, {role: values[predictions.test] for role, values in drawn.items()}


def _usable(record: Record, truth: np.ndarray) -> list[int]:
    return [k for k in record.task.scored if 0 < truth[:, k].sum() < len(truth)]


def _mean(truth: np.ndarray, probabilities: np.ndarray, classes: list[int], curve: Any) -> np.ndarray:
    return np.mean([curve(truth[:, k], probabilities[:, k]) for k in classes], axis=0)


def _roc(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Sensitivity over the grid of false positive rates, ``[101]``."""
    from sklearn.metrics import roc_curve

    false_rate, true_rate, _ = roc_curve(truth, scores)
    curve = np.interp(_GRID, false_rate, true_rate)
    curve[0] = 0.0
    return curve


def _pr(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Precision over the grid of recalls, ``[101]``: the best that reaches at least this recall."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, scores)
    best = np.maximum.accumulate(precision[:-1])[::-1]
    return best[np.searchsorted(recall[:-1][::-1], _GRID, side="left")]


def _overlay(axes: Axes, curves: dict[str, np.ndarray]) -> None:
    """A line per role, the first above the others; its marker stands once on it, each at another place."""
    for number, role in reversed(list(enumerate(in_order(curves)))):
        look = {"color": colour(role), "linestyle": dashes(role), "marker": marker(role)}
        axes.plot(_GRID, curves[role], linewidth=1.7, markersize=6, markevery=[12 + 9 * number % 84], **look)

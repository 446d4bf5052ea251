"""The report's part on several trainings: ``luck`` of metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillroom.evaluation.roles import MAJORITY, noun
from stillroom.report.numbers import METRICS, MISSING, Estimate, estimate, true_minus
from stillroom.report.record import Record, in_order, title
from stillroom.report.style import colour, marker
from stillroom.report.svg import render
from stillroom.report.tables import Cell, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class LuckSection:
    """What the page shows of several trainings.

    Attributes:
        statement: what was done, in a sentence or two.
        table: the selection metric of every role in every training, and the means.
        drawing: the same as dots, with the means' intervals; None where nothing is defined.
        comparisons: a sentence for each comparison with the student.
    """

    statement: str
    table: Grid
    drawing: str | None
    comparisons: list[str]


def luck_section(record: Record) -> LuckSection | None:
    """None where there was one training each."""
    found = record.luck
    if found is None:
        return None
    return LuckSection(found["statement"], _table(found), _dots(found), [_sentence(*pair) for pair in _compared(found)])


def _table(found: dict[str, Any]) -> Grid:
    roles, metric = in_order(found["figures"]), METRICS[found["metric"]]
    name = "Training" if found["kind"] == "repeats" else "Cut"
    rows: list[tuple[Cell, ...]] = []
    for number, run in enumerate(found["runs"], start=1):
        handed = " (handed over)" if number == found.get("exported") else ""
        rows.append((f"{name} {number}{handed}", *(estimate(run.get(role)) or MISSING for role in roles)))
    for key, what in ((found["metric"], f"Mean {metric}"), ("accuracy", "Mean accuracy")):
        rows.append((what, *(estimate(found["figures"][role].get(key)) or MISSING for role in roles)))
    return Grid((metric, *map(title, roles)), rows)


def _compared(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    others = {key.removeprefix("student_vs_"): comparison for key, comparison in found["comparison"].items()}
    return [(other, others[other]) for other in in_order(others)]


def _sentence(other: str, comparison: dict[str, Any]) -> str:
    accuracy = estimate(comparison.get("accuracy_difference"))
    said = true_minus(str(comparison["statement"]))
    return f"{said} Accuracy, student − {noun(other)}: {accuracy.text(signed=True)}." if accuracy else said


def _dots(found: dict[str, Any]) -> str | None:
    """A row per role: its trainings as dots, and their mean with its interval. The majority class has nothing to show."""
    means: dict[str, Estimate] = {}
    for role in in_order(found["figures"]):
        figure = estimate(found["figures"][role].get(found["metric"]))
        if figure and role != MAJORITY:
            means[role] = figure
    if not means:
        return None
    runs = {role: [run[role] for run in found["runs"] if run.get(role) is not None] for role in means}

    def paint(axes: Axes) -> None:
        for row, (role, mean) in enumerate(means.items()):
            axes.plot(mean.ends, [row, row], color=colour(role), linewidth=2.4, solid_capstyle="butt")
            axes.plot(mean.value, row, marker(role), color=colour(role), markersize=8)
            axes.plot(runs[role], [row + 0.3] * len(runs[role]), "o", color=colour(role), markersize=4, alpha=0.7)
        axes.set_yticks(range(len(means)), [title(role) for role in means])
        axes.set_ylim(len(means) - 0.4, -0.5)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{METRICS[found['metric']]}, higher is better")

    label = "; ".join(f"{title(role)} {mean.text()}" for role, mean in means.items())
    what = "trainings" if found["kind"] == "repeats" else "cuts of the data"
    label = f"{METRICS[found['metric']]} over {found['count']} {what}: {label}."
    return render("luck", label, (520, 66 + 40 * len(means)), paint)

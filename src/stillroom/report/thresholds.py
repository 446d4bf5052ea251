"""The report's part on acting on the probabilities: ``operating_points`` and ``decision_curves`` of metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.evaluation.operating_points import probability, surely
from stillroom.evaluation.roles import noun
from stillroom.report.numbers import MISSING, count, estimate, fixed
from stillroom.report.record import Record, in_order
from stillroom.report.style import colour, dashes
from stillroom.report.svg import ink, render, short
from stillroom.report.tables import Cell, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 20
_SENTENCES = 4
_COLUMNS = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "flagged": "Flagged",
}
HOW = (
    "A threshold is chosen on validation for a wanted sensitivity (or specificity): the highest at which that is surely "
    "reached, as it is by 95 of 100 validation sets. An image is flagged where its calibrated probability is at least the "
    "threshold. PPV is the share of the flagged that have the finding, NPV the share of the others that lack it; both hold "
    "where findings are as common as in the test. Every test image counts, also what would be refused as foreign."
)
READING = (
    "Who acts from a threshold probability on says by it how many false alarms one found case is worth: at 0.10 nine, at "
    "0.50 one. Net benefit is found cases per image less false alarms at that price. A network is of use at the thresholds "
    "where its line lies above those of flagging every image and of flagging none (which is 0), if these are thresholds that "
    "somebody would act on. Probabilities are the calibrated ones; the band is the 95 % interval at each threshold."
)


@dataclass(frozen=True)
class ThresholdsSection:
    """What the page and the card show.

    Attributes:
        statements: on each operating point, in a sentence; of many the table alone tells.
        points: their figures; None where there are none.
        notes: what to mind, in sentences.
        how: how thresholds are chosen.
        curves: heading and drawing of each question.
        reading: how to read them.
        benefits: on each curve, in a sentence.
        better: the same of many, as a table; else None.
        roles: whose curves are drawn.
        left_out: how many curves are not.
    """

    statements: list[str]
    points: Grid | None
    notes: list[str]
    how: str
    curves: list[tuple[str, str]]
    reading: str
    benefits: list[str]
    better: Grid | None
    roles: list[str]
    left_out: int


def thresholds_section(record: Record) -> ThresholdsSection | None:
    """None for a run that was made before there were any."""
    points, curves = record.metrics.get("operating_points"), record.metrics.get("decision_curves")
    drawn = (curves or {}).get("curves") or {}
    if not points and not drawn:
        return None
    told = (points or {}).get("points") or []
    few = len(told) <= _SENTENCES
    statements = [point["statement"] for point in told]
    benefits = [found["statement"] for found in drawn.values()]
    least = sorted(drawn, key=lambda name: -drawn[name]["share"])[:MAX_PANELS]
    roles = in_order({name for found in drawn.values() for name in found["networks"]})
    large = len(drawn) == 1
    return ThresholdsSection(
        statements=statements if few else [],
        points=_points(told) if told else None,
        notes=[*record.first_cut, *((points or {}).get("notes") or [])],
        how=HOW,
        curves=[
            (name, _drawing(number, name, curves or {}, roles, large))
            for number, name in enumerate(drawn)
            if name in least
        ],
        reading=READING,
        benefits=benefits if len(benefits) <= _SENTENCES else [],
        better=_better(drawn) if len(benefits) > _SENTENCES else None,
        roles=roles,
        left_out=len(drawn) - len(least),
    )


def _points(told: list[dict[str, Any]]) -> Grid:
    rows: list[tuple[Cell, ...]] = [
        (
            f"{point['of']} at {point['for']} {point['wanted']:g}",
            probability(point["threshold"]),
            surely(point["promised"]) if point["promised"] < point["wanted"] else fixed(point["promised"], 3),
            *(estimate(point["figures"][key]) or MISSING for key in _COLUMNS),
            f"{count(point['positives'])} of {count(point['positives'] + point['negatives'])}",
        )
        for point in told
    ]
    return Grid(("Operating point", "Threshold", "Surely reached", *_COLUMNS.values(), "With the finding"), rows)


def _better(drawn: dict[str, Any]) -> Grid:
    rows: list[tuple[Cell, ...]] = [
        (name, fixed(found["share"]), in_words(found["better"])) for name, found in drawn.items()
    ]
    return Grid(("Question", "Share with the finding", "Surely better at thresholds"), rows)


def in_words(ranges: list[list[float]]) -> str:
    """Ranges of thresholds; ``none shown`` for none."""
    parts = [f"{first:.2f}" if first == last else f"{first:.2f} to {last:.2f}" for first, last in ranges]
    return ", ".join(parts) or "none shown"


def _drawing(number: int, name: str, curves: dict[str, Any], roles: list[str], large: bool) -> str:
    found, x = curves["curves"][name], curves["thresholds"]
    own = curves["role"]
    top = max(found["share"], *(value for value in found["networks"][own] if value is not None)) * 1.12
    bottom = -top / 4

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=ink("muted"), linewidth=0.9, linestyle=":")
        axes.plot(x, found["all"], color=ink("muted"), linewidth=1.1)
        low, high = (np.clip(_floats(found[end]), bottom, top) for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour(own), alpha=0.18, linewidth=0)
        for role in reversed(roles):
            if role in found["networks"]:
                line = _floats(found["networks"][role])
                axes.plot(x, line, color=colour(role), linestyle=dashes(role), linewidth=1.7)
        axes.set(xlim=(0, 1), ylim=(bottom, top))
        if large:
            axes.set(xlabel="threshold probability", ylabel="net benefit")
            where = min(range(len(x)), key=lambda place: abs(found["all"][place] - top / 5))
            axes.annotate(
                "flag all", (x[where], found["all"][where]), (7, 0), textcoords="offset points", fontsize=10,
                color=ink("muted"),
            )  # fmt: skip
            axes.annotate("flag none", (0.01, 0), (0, 4), textcoords="offset points", fontsize=10, color=ink("muted"))
        else:
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.locator_params(axis="y", nbins=4)

    who = ", ".join(noun(role) for role in roles)
    label = f"Decision curves of {short(name)}: net benefit by threshold probability for {who}, flagging all and none."
    return render(f"benefit-{number}", label, (440, 300) if large else (172, 160), paint)


def _floats(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

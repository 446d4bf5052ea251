"""index.html: the grid's results on one page that opens offline, in the style of a run's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from stillroom.bench import tables
from stillroom.bench.collect import Outcome, System, synthetic
from stillroom.bench.published import caveats, published
from stillroom.report.numbers import METRICS
from stillroom.report.svg import ink, render, short
from stillroom.report.templating import TEMPLATES, environment
from stillroom.shown import shown_in_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"beats its control": "student", "worse": "bad", "no difference seen": "muted"}
_MARKERS = {"beats its control": "o", "worse": "s", "no difference seen": "D"}
TONES = {"beats its control": "good", "worse": "bad"}


def page(file: Path, outcomes: Sequence[Outcome], found: Sequence[System], over_sets: dict[str, Any] | None) -> str:
    """The page as HTML.

    Args:
        file: the grid file, for its name.
        outcomes: every cell.
        found: their systems.
        over_sets: see :func:`~stillroom.bench.collect.over_sets`.
    """
    drawn = synthetic(outcomes)
    sections = []
    for number, (data, systems) in enumerate(tables.by_data(found).items()):
        source = tables.source_of(outcomes, data)
        rows = published(source)
        sections.append(
            {
                "id": f"data-{number}",
                "data": data,
                "synthetic": data in drawn,
                "names": [(name, METRICS[name]) for name in tables.figure_names(systems)],
                "metric": next((METRICS[system.metric] for system in systems if system.metric), ""),
                "systems": systems,
                "marks": tables.marks(systems),
                "remarks": tables.remarks(systems),
                "forest": forest(f"forest-{number}", data, systems),
                "published": tables.published_summary(rows) if rows else None,
                "caveats": caveats(source),
            }
        )
    states = [outcome.state for outcome in outcomes]
    context = {
        "css": (TEMPLATES / "style.css").read_text(encoding="utf-8"),
        "title": file.stem,
        "file": file.name,
        "count": {state: states.count(state) for state in ("done", "failed", "waiting")},
        "seeds": sorted({outcome.cell.seed for outcome in outcomes}),
        "reading": tables.READING,
        "sections": sections,
        "tones": TONES,
        "over_sets": tables.over_sets_lines(over_sets) if over_sets else [],
        "failures": tables.failures(outcomes),
        "runs": [
            (outcome.cell.title, f"cells/{quote(outcome.cell.id)}/report.html")
            for outcome in outcomes
            if outcome.state == "done"
        ],
        "state": tables.state,
        "verdict": tables.verdict_text,
        "synthetic": bool(drawn),
    }
    return shown_in_lines(environment(signed=_signed).get_template("bench.html.j2").render(context))


def forest(name: str, data: str, systems: Sequence[System]) -> str | None:
    """Differences to the control with their intervals, a row per system; None where there are none."""
    rows = [(s, s.difference) for s in systems if s.difference and not np.isnan(s.difference.value)]
    if not rows:
        return None
    shared = [len({system.key[part] for system, _ in rows}) == 1 for part in (2, 3)]

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=ink("ink"), linewidth=1)
        reach = 1e-3
        for place, (system, difference) in enumerate(rows):
            low, high = _ends(difference)
            colour = ink(_COLOURS[system.verdict])
            axes.plot([low, high], [place, place], color=colour, linewidth=2.4, solid_capstyle="butt")
            axes.plot(difference.value, place, _MARKERS[system.verdict], color=colour, markersize=7)
            reach = max(reach, abs(low), abs(high))
        axes.set_xlim(-1.12 * reach, 1.12 * reach)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [_label(system, shared) for system, _ in rows])
        axes.locator_params(axis="x", nbins=5)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("← worse · better than the control →")

    text = "; ".join(f"{system.title}: {tables.difference_text(difference)}" for system, difference in rows)
    lines = 1 + sum(not one for one in shared)
    return render(
        name, f"Differences to the control on {data}. {text}.", (460, 62 + (14 + 14 * lines) * len(rows)), paint
    )


def _label(system: System, shared: list[bool]) -> str:
    """The recipe, and below it what differs between the rows."""
    others = [name for name, same in zip(system.key[2:], shared, strict=True) if name and not same]
    return "\n".join(short(part, 24) for part in (system.key[1], *others))


def _ends(difference: Any) -> tuple[float, float]:
    if difference.low is None or difference.high is None:
        return difference.value, difference.value
    return difference.low, difference.high


def _signed(value: Any) -> str:
    from stillroom.report.numbers import fixed

    return fixed(value, signed=True)

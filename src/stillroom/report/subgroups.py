"""The report's parts on who was tested: patients, subgroups, and the quality of the images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillroom.evaluation.roles import noun
from stillroom.evaluation.subgroup_words import WORDS, warnings_of
from stillroom.report.finding import Finding
from stillroom.report.numbers import METRICS, MISSING, Estimate, count, estimate
from stillroom.report.record import Record, in_order, title
from stillroom.report.style import colour, marker
from stillroom.report.svg import ink, render, short
from stillroom.report.tables import Cell, Grid
from stillroom.shown import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADINGS = {"by_patient": "By patient", "groups": "Subgroups", "quality": "Image quality"}
_ROW = 19
_PROPERTY = {
    "sharpness": "sharpness",
    "contrast": "contrast",
    "brightness": "brightness",
    "size": "size of the file's image",
}


@dataclass(frozen=True)
class PatientSection:
    """What the page shows of patients: a sentence, figures by patient beside those by image, and what to mind."""

    sentence: str
    table: Grid | None
    notes: list[str]


@dataclass(frozen=True)
class SubgroupSection:
    """What the page shows of subgroups.

    Attributes:
        key: of its place on the page.
        title: its heading.
        warnings: statements that must not be missed, each ``bad`` (a gap) or ``note`` (too few images).
        statements: the others.
        drawings: of the main figure and sensitivity, by subgroup.
        tables: with their captions, one for each column.
        gaps: the largest of each column and figure; None where none could be compared.
        notes: how it was judged.
    """

    key: str
    title: str
    warnings: list[tuple[str, str]]
    statements: list[str]
    drawings: list[dict[str, str]]
    tables: list[tuple[str, Grid]]
    gaps: Grid | None
    notes: list[str]


def patient_section(record: Record) -> PatientSection | None:
    """What stands in metrics.json of patients; None where there is nothing to tell."""
    found = record.metrics.get("by_patient")
    if not found:
        return None
    sentence = (
        f"{counted(found['patients'], 'patient', 'patients')} with {counted(found['images'], 'image', 'images')}. A patient "
        "is judged by the mean of its images' probabilities."
    )
    return PatientSection(sentence, patients_table(record), [*record.first_cut, *found["notes"]])


def patients_table(record: Record) -> Grid | None:
    """Figures by patient, the student's by image beside them; None where there are none."""
    figures = (record.metrics.get("by_patient") or {}).get("figures") or {}
    if not figures:
        return None
    roles = in_order(figures)
    first = roles[0]
    rows: list[tuple[Cell, ...]] = [
        (
            METRICS[name],
            estimate(record.test.get(first, {}).get(name)) or MISSING,
            *(estimate(figures[role].get(name)) or MISSING for role in roles),
        )
        for name in METRICS
        if name in figures[first]
    ]
    columns = (f"{title(first)}, by image", *(f"{title(role)}, by patient" for role in roles))
    return Grid(("Figure", *columns), rows)


def subgroup_section(record: Record, key: str, *, drawn: bool = True) -> SubgroupSection | None:
    """What stands in metrics.json under ``groups`` or ``quality``, perhaps ``drawn``; None where there is nothing."""
    found = record.metrics.get(key)
    if not found or not found["columns"]:
        return None
    said = [text for column in found["columns"] for text in column["statements"]]
    urgent = warnings_of(found)
    return SubgroupSection(
        key=key,
        title=HEADINGS[key],
        warnings=[("bad" if " differs by " in text else "note", text) for text in urgent],
        statements=[text for text in said if text not in urgent],
        drawings=[
            {"heading": f"{METRICS[name]} of the {noun(found['role'])}", "svg": svg}
            for name in dict.fromkeys((found["figure"], "sensitivity"))
            if drawn and (svg := _forest(key, found, name))
        ],
        tables=[(_caption(column), column_table(record, found, column)) for column in found["columns"]],
        gaps=gaps_table(found),
        notes=[*record.first_cut, *found["notes"]],
    )


def column_table(record: Record, found: Mapping[str, Any], column: Mapping[str, Any]) -> Grid:
    """A row per subgroup with its numbers and figures."""
    names = [name for name in METRICS if name in column["groups"][0]]
    numbers = {"images": "Images"}
    if found["unit"] == "patient":
        numbers["patients"] = "Patients"
    if column["groups"][0]["positives"] is not None:
        numbers["positives"] = f"With {record.task.positive_class}" if record.task.positive_class else "Positive"
    rows: list[tuple[Cell, ...]] = [
        (
            group["name"] + (" (too small)" if group["small"] else ""),
            *(count(group[number]) for number in numbers),
            *(estimate(group[name]) or MISSING for name in names),
        )
        for group in column["groups"]
    ]
    return Grid((_heading(column["name"]), *numbers.values(), *(METRICS[name] for name in names)), rows)


def gaps_table(found: Mapping[str, Any]) -> Grid | None:
    """The largest gap of each column and figure, between whom, and whether it is surely there."""
    rows: list[tuple[Cell, ...]] = [
        (
            f"{column['name']}: {WORDS[name]}",
            estimate(gap) or MISSING,
            f"{gap['most']} over {gap['least']}",
            "yes" if gap["sure"] else "no",
        )
        for column in found["columns"]
        for name, gap in column["gaps"].items()
    ]
    return Grid(("Column and figure", "Largest gap", "Between", "Surely there"), rows) if rows else None


def gap_findings(record: Record) -> list[Finding]:
    """Of tone bad where subgroups that the user named surely differ."""
    found = record.metrics.get("groups") or {"columns": []}
    sure = [column for column in found["columns"] if any(gap["sure"] for gap in column["gaps"].values())]
    if not sure:
        return []
    names = [column["name"] for column in sure]
    text = f"The figures differ by {', '.join(names)}: the mean over all is nobody's own."
    return [Finding("bad", text, " ".join(column["statements"][0] for column in sure))]


def _caption(column: Mapping[str, Any]) -> str:
    return f"By {_PROPERTY.get(column['name'], column['name'])}, with 95 % intervals. {column['how']}".strip()


def _heading(name: str) -> str:
    return name[:1].upper() + name[1:]


def _forest(key: str, found: Mapping[str, Any], name: str) -> str | None:
    """A row per subgroup under the name of its column, all images as a dashed line."""
    names: list[str] = []
    headings: list[int] = []
    wholes: list[tuple[int, int, float]] = []
    points: list[tuple[int, str, Estimate, bool]] = []
    for column in found["columns"]:
        headings.append(len(names))
        names.append(column["name"])
        for group in column["groups"]:
            if figure := estimate(group[name]):
                points.append((len(names), group["name"], figure, bool(group["small"])))
            names.append(group["name"])
        if everyone := estimate(column["all"][name]):
            wholes.append((headings[-1], len(names), everyone.value))
    if not points:
        return None
    role = found["role"]

    def paint(axes: Axes) -> None:
        for above, below, value in wholes:
            axes.plot(
                [value, value], [above + 0.5, below - 0.5], color=ink("muted"), linewidth=1, linestyle=(0, (4, 2))
            )
        for place, _, figure, small in points:
            shade = ink("muted") if small else colour(role)
            axes.plot(figure.ends, [place, place], color=shade, linewidth=1.6, solid_capstyle="butt")
            (mark,) = axes.plot(figure.value, place, marker(role), color=shade, markersize=5.5)
            if small:
                mark.set_markerfacecolor("none")
        axes.set_yticks(range(len(names)), [short(text, 26) for text in names])
        for place in headings:
            axes.get_yticklabels()[place].set_fontweight("bold")
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(METRICS[name])

    told = "; ".join(f"{group} {figure.text()}" for _, group, figure, _ in points)
    return render(f"{key}-{name}", f"{METRICS[name]} by subgroup: {told}.", (440, 52 + _ROW * len(names)), paint)

"""The report's part on corrupted images: drawings, tables and sentences from ``robustness`` of metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillroom.report.numbers import METRICS, MISSING, estimate, fixed
from stillroom.report.record import Record, in_order, title
from stillroom.report.style import colour, dashes, marker
from stillroom.report.svg import render
from stillroom.report.tables import NARROW, Cell, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class RobustnessSection:
    """What the page shows of corrupted images.

    Attributes:
        images: how many test images were corrupted.
        corruptions: how many kinds of corruption there were, each at every severity.
        severities: how many severities.
        reference: the role that others are measured by, or None.
        drawings: ``heading`` and ``svg`` of each panel.
        summary: figures over all corruptions, a network per column.
        table: accuracy under each corruption, two columns per network.
        differences: a sentence per network that the student is compared with.
        published: what MedMNIST-C states for this data set, or None.
        notes: what to mind, in sentences.
    """

    images: int
    corruptions: int
    severities: int
    reference: str | None
    drawings: list[dict[str, str]]
    summary: Grid
    table: Grid
    differences: list[str]
    published: str | None
    notes: list[str]


def robustness_section(record: Record) -> RobustnessSection | None:
    """What stands in metrics.json of corrupted images; None where the run corrupted none."""
    found = record.metrics.get("robustness")
    if not found:
        return None
    published = found["published"]
    return RobustnessSection(
        images=found["images"],
        corruptions=len(found["corruptions"]),
        severities=len(found["severities"]),
        reference=found["reference"],
        drawings=[
            {"heading": f"{METRICS[key]} by severity", "svg": _by_severity(found, key)}
            for key in ("accuracy", _calibration_key(found))
        ],
        summary=robustness_table(found),
        table=_by_corruption(found),
        differences=[_difference(other, found["difference"][other]) for other in in_order(found["difference"])],
        published=published
        and f"{published['network']} on this data set: error {fixed(published['clean_error'])} on "
        f"clean and {fixed(published['mean_error'])} on corrupted images. {published['note']}",
        notes=found["notes"],
    )


def _calibration_key(found: dict[str, Any]) -> str:
    """Runs of an earlier Stillroom have the usual error over bins alone."""
    return "calibration_error" if all("calibration_error" in one for one in found["by_severity"].values()) else "ece"


def _by_severity(found: dict[str, Any], key: str) -> str:
    """A line per network from clean images to the highest severity, with an interval at each point."""
    lines = found["by_severity"]
    roles = in_order(lines)
    ticks = ["clean", *map(str, found["severities"])]

    def paint(axes: Axes) -> None:
        # The student is drawn last, above the others.
        for number, role in reversed(list(enumerate(roles))):
            points = [
                (place + 0.08 * (number - (len(roles) - 1) / 2), figure)
                for place, raw in enumerate(lines[role][key])
                if (figure := estimate(raw))
            ]
            for x, figure in points:
                axes.plot([x, x], figure.ends, color=colour(role), linewidth=1.2, alpha=0.7, solid_capstyle="butt")
            axes.plot(
                [x for x, _ in points], [figure.value for _, figure in points], color=colour(role),
                marker=marker(role), markersize=5, linestyle=dashes(role), linewidth=1.5,
            )  # fmt: skip
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set_xlim(-0.3, len(ticks) - 0.7)
        axes.grid(False, axis="x")
        axes.set_xlabel("severity, mean over corruptions")
        axes.set_ylabel(METRICS[key])

    ends = "; ".join(
        f"{role} {fixed(lines[role][key][0]['value'])} on clean images, {fixed(lines[role][key][-1]['value'])} at the "
        f"highest severity"
        for role in roles
    )
    return render(f"robustness-{key}", f"{METRICS[key]} by severity. {ends}.", (400, 265), paint)


def robustness_table(found: dict[str, Any]) -> Grid:
    """Figures over all corruptions, a network per column."""
    roles, reference = in_order(found["summary"]), found["reference"]
    figures = [
        (f"Accuracy, clean{NARROW}↑", found["clean"], "accuracy"),
        (f"Accuracy, corrupted{NARROW}↑", found["summary"], "mean_accuracy"),
        (f"Balanced error, clean{NARROW}↓", found["clean"], "balanced_error"),
        (f"Balanced error, corrupted{NARROW}↓", found["summary"], "mean_error"),
        (f"Its rise{NARROW}↓", found["summary"], "rise"),
    ]
    rows: list[tuple[Cell, ...]] = [
        (name, *(estimate(values[role].get(key)) or MISSING for role in roles)) for name, values, key in figures
    ]
    relative = (
        ("rise_over_reference", f"Its rise, less the {reference}'s", "0 (reference)"),
        ("be", "BE", "1 (reference)"),
        ("rbe", "rBE", "1 (reference)"),
    )
    for key, name, itself in relative if reference else ():
        # The reference is measured by itself, so that its own figure says nothing.
        cells = (estimate(found["summary"][role].get(key)) if role != reference else itself for role in roles)
        rows.append((f"{name}{NARROW}↓", *(cell or MISSING for cell in cells)))
    if found["published"]:
        published = found["published"]
        ratios = (fixed(published["ratio"][role]) for role in roles)
        rows.append((f"Corrupted error / {published['network']}'s{NARROW}↓", *ratios))
    return Grid(("Figure", *(title(role) for role in roles)), rows)


def _by_corruption(found: dict[str, Any]) -> Grid:
    """Accuracy as a mean over severities with its interval, and the lowest with its severity."""
    roles = in_order(found["summary"])
    clean: list[Cell] = []
    for role in roles:
        clean += [estimate(found["clean"][role]["accuracy"]) or MISSING, ""]
    rows: list[tuple[Cell, ...]] = [("Clean images", "", *clean)]
    for name, networks in found["corruptions"].items():
        cells: list[Cell] = []
        for role in roles:
            cells += [estimate(networks[role]["mean_accuracy"]) or MISSING, _worst(found, networks[role]["accuracy"])]
        rows.append((_label(name), found["families"][name], *cells))
    columns = [column for role in roles for column in (f"{title(role)}, mean", f"{title(role)}, worst")]
    return Grid(("Corruption", "Kind", *columns), rows)


def _worst(found: dict[str, Any], accuracies: list[Any]) -> str:
    pairs = [(figure.value, severity) for raw, severity in zip(accuracies, found["severities"], strict=True)
             if (figure := estimate(raw))]  # fmt: skip
    if not pairs:
        return MISSING
    value, severity = min(pairs)
    return f"{fixed(value)} at {severity}"


def _difference(other: str, raw: Any) -> str:
    figure = estimate(raw)
    start = f"Mean accuracy on corrupted images, student minus {other}:"
    if figure is None or figure.low is None or figure.high is None:
        return f"{start} {figure.text(signed=True) if figure else MISSING}; without an interval nothing can be claimed."
    if figure.low > 0:
        claim = f"the student is right more often than the {other}"
    elif figure.high < 0:
        claim = f"the student is right less often than the {other}"
    else:
        claim = "the interval holds zero, so no difference is shown"
    return f"{start} {figure.text(signed=True)}; {claim}."


def _label(name: str) -> str:
    return "JPEG" if name == "jpeg" else name.replace("_", " ").capitalize()

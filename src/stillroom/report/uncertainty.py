"""The report's part on what the student does not know: ``conformal`` and ``ood`` of metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stillroom.report.numbers import MISSING, Estimate, count, estimate
from stillroom.report.record import Record, title
from stillroom.report.style import colour, marker
from stillroom.report.svg import class_colour, ink, render, short
from stillroom.report.tables import NARROW, Cell, Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MADE_UP = {"noise": "Noise", "shuffled": "Shuffled tiles", "inverted": "Inverted"}
MAX_ROWS = 30


@dataclass(frozen=True)
class Sets:
    """Sets of classes.

    Attributes:
        statement: how often they hold the truth, in a sentence.
        table: figures over all test images.
        per_class: coverage and size class by class.
        drawing: coverage class by class against what is promised; None where no class has an image.
        notes: what to mind, in sentences.
    """

    statement: str
    table: Grid
    per_class: Grid
    drawing: str | None
    notes: list[str]


@dataclass(frozen=True)
class Refusals:
    """Images refused as foreign.

    Attributes:
        statement: how many test images are refused, or why none can be, in a sentence.
        table: what the rule makes of foreign images; None where there is no rule.
        notes: what to mind, in sentences.
    """

    statement: str
    table: Grid | None
    notes: list[str]


@dataclass(frozen=True)
class UncertaintySection:
    """What the page shows; a part that the run did not measure is None."""

    sets: Sets | None
    refusals: Refusals | None


def uncertainty_section(record: Record) -> UncertaintySection | None:
    """What stands in metrics.json of sets and refusals; None where the run was made before there were any."""
    conformal, ood = record.metrics.get("conformal"), record.metrics.get("ood")
    if not conformal and not ood:
        return None
    return UncertaintySection(
        sets=conformal
        and Sets(
            statement=conformal["statement"],
            table=sets_table(record),
            per_class=_per_class(conformal),
            drawing=_coverage(conformal),
            notes=conformal["notes"],
        ),
        refusals=ood and Refusals(ood["statement"], refusal_table(ood), refusal_notes(ood)),
    )


def sets_table(record: Record) -> Grid:
    """Figures of the sets over all test images, which are those of the network that the run hands over."""
    conformal = record.metrics["conformal"]
    rows: list[tuple[Cell, ...]] = [
        ("Coverage promised", Estimate(conformal["wanted"])),
        ("Coverage found", _figure(conformal["coverage"])),
        (f"Mean size of a set{NARROW}↓", _figure(conformal["mean_size"])),
        (f"Sets of one member{NARROW}↑", _figure(conformal["singletons"])),
        (f"Accuracy of those{NARROW}↑", _figure(conformal["accuracy_of_singletons"])),
    ]
    return Grid(("Sets on test images", title(record.handed_over)), rows)


def refusal_table(ood: dict[str, Any]) -> Grid | None:
    """What is refused of the test images, of made-up images and of other sets; None where there is no rule."""
    if ood["rule"] is None:
        return None
    rows: list[tuple[Cell, ...]] = [("Test images (right kind)", "", _figure(ood["refused"]), "", "", "")]
    for found in (*ood["made_up"], *ood["against"]):
        figures = (_figure(found[key]) for key in ("refused", "auroc", "auroc_energy", "auroc_distance"))
        rows.append((MADE_UP.get(found["name"], found["name"]), count(found["images"]), *figures))
    areas = (f"AUROC{NARROW}↑", f"AUROC, energy{NARROW}↑", f"AUROC, distance{NARROW}↑")
    return Grid(("Images", "Number", "Share refused", *areas), rows)


def refusal_notes(ood: dict[str, Any]) -> list[str]:
    """What to mind about refusals; notes on another set bear its name."""
    found = list(ood.get("notes") or [])
    for other in ood.get("against") or []:
        found += [f"{other['name']}: {note}" for note in other.get("notes") or []]
    return found


def _per_class(conformal: dict[str, Any]) -> Grid:
    classes = conformal["per_class"]
    present = any("coverage_present" in values for values in classes.values())
    keys = {"coverage": "Coverage"} | ({"coverage_present": "Where present"} if present else {}) | {"size": "Mean size"}
    rows: list[tuple[Cell, ...]] = [
        (name, count(values["support"]), *(_figure(values[key]) for key in keys)) for name, values in classes.items()
    ]
    return Grid(("Label" if present else "Class", "With the label" if present else "Test images", *keys.values()), rows)


def _coverage(conformal: dict[str, Any]) -> str | None:
    """Coverage class by class with intervals; of many classes those covered least."""
    classes = conformal["per_class"]
    covered = {name: figure for name, values in classes.items() if (figure := estimate(values["coverage"]))}
    least = set(sorted(covered, key=lambda name: covered[name].value)[:MAX_ROWS])
    names = [name for name in covered if name in least]
    if not names:
        return None
    wanted = conformal["wanted"]

    def paint(axes: Axes) -> None:
        for row, name in enumerate(names):
            present = estimate(classes[name].get("coverage_present"))
            if present:
                axes.plot(present.ends, [row + 0.18] * 2, color=class_colour(1), linewidth=1.4, solid_capstyle="butt")
                axes.plot(present.value, row + 0.18, "^", color=class_colour(1), markersize=5.5)
            y = row - 0.18 if present else row
            axes.plot(covered[name].ends, [y, y], color=colour("student"), solid_capstyle="butt")
            axes.plot(covered[name].value, y, marker("student"), color=colour("student"), markersize=5.5)
        axes.axvline(wanted, color=ink("bad"), linestyle=(0, (3, 2)), linewidth=1.2)
        axes.annotate(
            f"{100 * wanted:g} % promised", (wanted, -0.6), (-4, 2), textcoords="offset points", ha="right", va="bottom",
            fontsize=10, color=ink("bad"), annotation_clip=False,
        )  # fmt: skip
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(right=1.01)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("share of sets that hold the truth")

    label = "; ".join(f"{name} {covered[name].value:.3f}" for name in names)
    label = f"Coverage class by class against the {100 * wanted:g} % that was promised. {label}."
    return render("coverage", label, (460, 74 + 24 * len(names)), paint)


def _figure(raw: Any) -> Cell:
    return estimate(raw) or MISSING

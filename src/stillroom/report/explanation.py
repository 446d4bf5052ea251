"""The report's part on heat maps: verdicts, tables and drawings from ``explanation`` of metrics.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.evaluation.roles import STUDENT, noun
from stillroom.explanation.claims import FAITHFUL, LABELS, NOT_FAITHFUL, Verdict, verdict_of
from stillroom.report.finding import Tone
from stillroom.report.map_gallery import MapGallery, map_gallery
from stillroom.report.numbers import MISSING, count, estimate, true_minus
from stillroom.report.record import Record, in_order, title
from stillroom.report.style import colour, marker, unit_axes
from stillroom.report.svg import class_colour, render
from stillroom.report.tables import NARROW, Cell, Grid
from stillroom.shown import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stillroom.task import Task

METHODS = {
    "score_cam": "Score-CAM", "score_cam_fast": "Score-CAM, estimated", "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++", "eigen_cam": "Eigen-CAM", "rise": "RISE",
}  # fmt: skip
TRIVIAL = {"centre": "centre blob", "edges": "edges", "random": "random"}
_TRIVIAL_STYLE: dict[str, Any] = {
    "centre": (2, (0, (5, 2))),
    "edges": (3, (0, (2, 1.5))),
    "random": (4, (0, (6, 1.5, 1.2, 1.5))),
}
_PARTS = ("all", "right", "wrong")


@dataclass(frozen=True)
class Judgement:
    """What may be said of one network's maps.

    Attributes:
        role: whose maps.
        verdict: whether they may be shown as reasons.
        statement: in a sentence.
        reasons: why not, a sentence each.
    """

    role: str
    verdict: Verdict
    statement: str
    reasons: list[str]

    @property
    def faithful(self) -> bool:
        return self.verdict == FAITHFUL

    @property
    def label(self) -> str:
        """The verdict as a badge."""
        return LABELS[self.verdict]

    @property
    def tone(self) -> Tone:
        return {FAITHFUL: "good", NOT_FAITHFUL: "bad"}.get(self.verdict, "neutral")  # type: ignore[return-value]


@dataclass(frozen=True)
class ExplanationSection:
    """What the page shows of heat maps. Without maps, ``reason`` says why and the rest is empty.

    Attributes:
        reason: why there are no maps, or None.
        scope: how many images, which method and layer.
        judgements: one per network, first of the one explained.
        of: that network, as in "the student": the class explained is the one to which it gives the highest probability.
        judged: on which images they rest.
        maps: every map's gap beside those of trivial maps.
        measures: the other measures, a network per column; None without maps.
        drawings: ``heading`` and ``svg`` of the curves of the network explained.
        lesions: heat on marked regions; None where none is drawn.
        lesion_images: how many images have one.
        agreement: of the maps of two networks; None of one network alone.
        guidance: a sentence per figure in which student and control are compared.
        gallery: pictures, or None where the run keeps none.
        notes: what to mind, in sentences.
    """

    reason: str | None
    scope: str = ""
    judgements: tuple[Judgement, ...] = ()
    maps: Grid | None = None
    measures: Grid | None = None
    drawings: tuple[dict[str, str], ...] = ()
    lesions: Grid | None = None
    lesion_images: int = 0
    agreement: Grid | None = None
    guidance: tuple[str, ...] = ()
    gallery: MapGallery | None = None
    notes: tuple[str, ...] = ()
    judged: str = ""
    of: str = STUDENT


def explanation_section(record: Record) -> ExplanationSection | None:
    """What stands in metrics.json of heat maps; None where the run was made before there were any."""
    if "explanation" not in record.metrics:
        return None
    found = record.metrics["explanation"]
    if reason := without_maps(found):
        return ExplanationSection(reason)
    of = record.explained
    return ExplanationSection(
        reason=None,
        scope=_scope(found),
        judgements=tuple(judgements(record)),
        maps=maps_table(found),
        measures=_measures(found),
        drawings=tuple(_curves(found["curves"][of], of)),
        lesions=lesion_table(found),
        lesion_images=(found["lesions"] or {}).get("images", 0),
        agreement=_agreement(found),
        guidance=tuple(_guidance(found["guidance"] or {})),
        gallery=map_gallery(record),
        notes=(*_fast(found), *notes(found)),
        judged="" if _every_answer(record.task) else "Judged are images that are decided positive.",
        of=noun(of),
    )


def _fast(found: dict[str, Any]) -> list[str]:
    """How far the estimated Score-CAM agrees with the exact one, a sentence per network."""
    agreed = found.get("fast") or {}
    return [
        f"{title(role)}: estimated and exact Score-CAM correlate by {figure.text()} on {agreed[role]['images']} images."
        for role in in_order(agreed)
        if (figure := estimate(agreed[role]["pearson"]))
    ]


def notes(found: dict[str, Any]) -> list[str]:
    """What to mind. Which class is explained, page and card say themselves: earlier runs noted the student's always."""
    return [note for note in found["notes"] if not note.startswith("The class explained is ")]


def without_maps(found: dict[str, Any] | None) -> str | None:
    """Why a run has no maps, in a sentence; None where it has."""
    if found is None:
        return "No heat maps were asked for."
    return None if found["images"] else str(found["reason"])


def _every_answer(task: Task) -> bool:
    """Whether every answer says that something is there: classes without order know no positive one."""
    return task.kind == "multiclass"


def judgements(record: Record) -> list[Judgement]:
    """What may be said of each network's maps, first of those of the network explained, then student first."""
    found = record.metrics["explanation"]
    judged = found["faithfulness"]
    return [
        Judgement(
            role,
            verdict_of(judged[role]),
            true_minus(found["statement"][role]),
            [true_minus(reason) for reason in judged[role]["reasons"]],
        )
        for role in sorted(in_order(judged), key=lambda role: role != record.explained)
    ]


def maps_table(found: dict[str, Any]) -> Grid:
    """Every network asked about its own map and about the trivial ones."""
    rows: list[tuple[Cell, ...]] = []
    for role in in_order(found["faithfulness"]):
        own = found["faithfulness"][role]
        rows.append(
            (f"{title(role)}, own map", _figure(own["gap"]), "", _figure(own["drop"]), _figure(own["increase"]))
        )
        for name, trivial in own["controls"].items():
            figures = (trivial["gap"], own["advantage"][name], trivial["drop"], trivial["increase"])
            rows.append((f"{title(role)}, {TRIVIAL.get(name, name)}", *map(_figure, figures)))
    columns = (
        f"Insertion − deletion{NARROW}↑",
        f"Own map is better by{NARROW}↑",
        f"Drop{NARROW}↓",
        f"Increase{NARROW}↑",
    )
    return Grid(("Network and map", *columns), rows)


def _measures(found: dict[str, Any]) -> Grid:
    judged = found["faithfulness"]
    roles = in_order(judged)
    names = {
        "deletion_blur": f"Deletion, to a blurred image{NARROW}↓",
        "insertion_blur": f"Insertion, into a blurred image{NARROW}↑",
        "deletion_mean": f"Deletion, to the mean colour{NARROW}↓",
        "insertion_mean": f"Insertion, into the mean colour{NARROW}↑",
    }
    if any("road" in judged[role] for role in roles):
        names["road"] = f"ROAD{NARROW}↑"
    rows: list[tuple[Cell, ...]] = [
        (name, *(_figure(judged[role].get(key)) for role in roles)) for key, name in names.items()
    ]
    for key, name in (("pearson", "correlation"), ("ssim", "SSIM")):
        cells = (_figure(judged[role]["sanity"][key]) for role in roles)
        rows.append((f"With random weights, {name}{NARROW}↓", *cells))
    return Grid(("Own maps", *map(title, roles)), rows)


def lesion_table(found: dict[str, Any]) -> Grid | None:
    """How much heat lies on marked regions, and how often its peak does; None where none is drawn."""
    lesions = found["lesions"]
    if lesions is None:
        return None
    roles = [role for role in in_order(found["method"]) if role in lesions]
    names = {role: f"{title(role)}'s map" for role in roles} | {
        name: text.capitalize() for name, text in TRIVIAL.items() if name in lesions
    }
    rows: list[tuple[Cell, ...]] = [
        (text, _figure(lesions[name]["energy"]), _figure(lesions[name]["pointing"])) for name, text in names.items()
    ]
    rows.append(("Flat map (share of the image)", _figure(lesions["share"]), MISSING))
    return Grid(("Map", f"Heat on the marked region{NARROW}↑", f"Peak on the marked region{NARROW}↑"), rows)


def _agreement(found: dict[str, Any]) -> Grid | None:
    """How much the maps of two networks agree; None of one network alone."""
    rows: list[tuple[Cell, ...]] = []
    for pair, parts in found["agreement"].items():
        first, second = pair.split("_vs_")
        for part in _PARTS:
            if images := parts["images"][part]:
                figures = (_figure(parts[part][key]) for key in ("pearson", "ssim", "iou"))
                rows.append((f"{title(first)} and {second}, {part}", count(images), *figures))
    if not rows:
        return None
    return Grid(("Maps of", "Images", "Correlation", "SSIM", "Overlap of the top 20 %"), rows)


def _guidance(found: dict[str, Any]) -> list[str]:
    names = {
        "pearson": "Correlation with the teacher's map",
        "iou": "Overlap with the teacher's top 20 %",
        "energy": "Heat on the marked region",
    }
    said = []
    for key, name in names.items():
        figure = estimate(found.get(key))
        if figure is None:
            continue
        start = f"{name}, student minus control: {figure.text(signed=True)}"
        if figure.low is None or figure.high is None:
            claim = "without an interval nothing can be claimed"
        elif figure.low > 0:
            claim = "the student's is higher"
        elif figure.high < 0:
            claim = "the student's is lower"
        else:
            claim = "the interval holds zero, so no difference is shown"
        said.append(f"{start}; {claim}.")
    return said


def _curves(found: dict[str, Any], role: str) -> list[dict[str, str]]:
    """Deletion and insertion of a network's maps and of trivial ones, a panel each."""
    headings = {"deletion": "Deletion: pixels blurred", "insertion": "Insertion: pixels restored"}
    return [{"heading": heading, "svg": _curve(found, key, role)} for key, heading in headings.items()]


def _curve(found: dict[str, Any], key: str, role: str) -> str:
    shares = found["shares"]
    places = np.linspace(0, 1, len(shares))  # every share counts alike, as it does in the areas
    lines = {name: np.array(curves[key], dtype=np.float64) for name, curves in found["controls"].items()}
    own = np.array(found[key], dtype=np.float64)

    def paint(axes: Axes) -> None:
        unit_axes(
            axes, f"% of the pixels {'blurred' if key == 'deletion' else 'restored'}, hottest first", "probability"
        )
        for name, values in lines.items():
            number, dashes = _TRIVIAL_STYLE.get(name, (5, ":"))
            axes.plot(
                places,
                values,
                color=class_colour(number),
                linestyle=dashes,
                linewidth=1.4,
                label=TRIVIAL.get(name, name),
            )
        axes.plot(places, own, color=colour(role), marker=marker(role), markersize=4, label=f"{noun(role)}'s map")
        low, high = min(map(np.nanmin, (own, *lines.values()))), max(map(np.nanmax, (own, *lines.values())))
        margin = max(0.06 * (high - low), 0.01)
        axes.set_ylim(low - margin, high + margin)
        axes.set_xticks(places, [f"{100 * share:g}" for share in shares], fontsize=9.5)
        axes.legend(frameon=False, fontsize=9.5)

    ends = f"from {own[0]:.3f} to {own[-1]:.3f}"
    label = (
        f"{key.capitalize()} curves of the {noun(role)}'s maps and of trivial maps, {ends}. The tables have the areas."
    )
    return render(f"maps-{key}", label, (400, 265), paint)


def _scope(found: dict[str, Any]) -> str:
    images = counted(int(found["images"]), "test image")
    if found["patients"] is not None:
        images += f" of {counted(int(found['patients']), 'patient')}"
    how: dict[str, list[str]] = {}
    for role in in_order(found["method"]):
        method, layer = found["method"][role], found["layer"][role]
        of = METHODS.get(method, method)
        if method != "rise":  # asks for no layer
            of += f", {f'layer {layer}' if layer else 'last feature map'}"
        how.setdefault(of, []).append(role)
    methods = "; ".join(f"{of} ({', '.join(roles)})" for of, roles in how.items())
    return f"Measured on {images}. Maps: {methods}."


def _figure(raw: Any) -> Cell:
    return estimate(raw) or MISSING

"""What the pages say of the file in another precision: what it keeps of the float32 one, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from stillroom.deployment.likeness import most_lost
from stillroom.report.numbers import estimate
from stillroom.report.section import Section
from stillroom.report.tables import Cell, Grid
from stillroom.shown import counted

_TITLES = {"int8": "In eight-bit integers", "fp16": "In half precision"}


def section_of(figures: Mapping[str, Any], precision: str) -> Section:
    """The section of a part of metrics.json, which is named after the precision: ``int8`` or ``fp16``."""
    text, title = [verdict(figures, precision)], _TITLES[precision]
    if not figures["images"]:
        return Section(precision, title, tuple(text))
    text.append(_metric(figures, precision))
    text += figures["downgraded"] if not figures["refused"] else []
    text += _how_int8(figures) if precision == "int8" else _how_fp16(figures)
    of = counted(figures["images"], "test image")
    tables = (
        (f"What the {precision} file keeps, on {of}", _kept(figures, precision)),
        (f"How alike both files answer, on {of}", _alike(figures)),
    )
    return Section(precision, title, tuple(text), tables)


def _how_int8(figures: Mapping[str, Any]) -> list[str]:
    text = []
    if figures["taught"]:
        text.append(
            "Rounding alone changed too much on validation, so the network was taught for a short while to bear it."
        )
    left, layers = figures["left_float"], figures["layers"]
    if left:
        stay = "1 stays" if len(left) == 1 else f"{len(left)} stay"
        text.append(f"Of {layers} layers {stay} float32, with what follows at once: {'; '.join(left)}.")
    else:
        text.append(f"All {layers} layers between pixels and features are in integers.")
    if stored := figures.get("stored_only"):  # runs of before do not tell
        of = "1 layer that sees" if stored == 1 else f"{stored} layers that see"
        text.append(f"The weights of {of} means over the whole image are stored in integers and computed in float32.")
    text.append(
        "Layers were chosen on validation images, where temperature and sets of classes were fitted again, to the int8 file's"
        " own answers, and the limit for foreign images was carried over to them. Every figure below is of the test images,"
        " shown to both files, in ONNX Runtime: other runtimes round otherwise."
    )
    return text


def _how_fp16(figures: Mapping[str, Any]) -> list[str]:
    return [
        "From the first layer to the last all is float16; the normalisation of pixels, features, probabilities and distances"
        " stay float32. Temperature and rules are those of student.onnx.",
        "Every figure below is of the test images, shown to both files on this machine's CPU. The file was not tried on a GPU"
        f" or an NPU: there other sums are rounded. The largest number between layers was {figures['largest']:.3g} on"
        " validation images; float16 ends at 65504.",
    ]


def verdict(figures: Mapping[str, Any], precision: str) -> str:
    """In a sentence, how alike the file decides, how small and fast it is; or why none is handed over."""
    if figures["refused"]:
        return f"No {precision} file is handed over. {' '.join(figures['refused'])}"
    images, size = figures["images"], figures["size_mb"]
    said = (
        f"student.{precision}.onnx decides {round(figures['agreement'] * images)} of {counted(images, 'test image')} like"
        f" student.onnx and is {size[0] / size[1]:.1f} times smaller ({size[1]:.1f} MB in place of {size[0]:.1f} MB)"
    )
    ratios = {
        name.replace("batch_", ""): found["float32"] / found[precision] for name, found in figures["latency_ms"].items()
    }
    if not ratios:
        return f"{said}."
    faster = " and ".join(f"{ratio:.1f} times (batch {batch})" for batch, ratio in ratios.items())
    slow = "" if min(ratios.values()) > 1 else ": this machine's CPU gains nothing by it"
    return f"{said}; its speed on one thread is {faster} that of student.onnx{slow}."


def _metric(figures: Mapping[str, Any], precision: str) -> str:
    """The comparison's own sentence, and what it leaves open."""
    compared = figures["comparison"]
    if compared["verdict"] != "inconclusive":
        return str(compared["statement"])
    most = most_lost(figures["images"])
    limit = "" if most == compared["margin"] else f", which is {most:.3f} here (one image's share),"
    return (
        f"{compared['statement']} {counted(figures['images'], 'test image')} cannot show whether the {precision} file keeps"
        " that margin:"
        f" the limit{limit} was held to the difference that was found, not to its interval."
    )


def _alike(figures: Mapping[str, Any]) -> Grid:
    rows: list[tuple[Cell, ...]] = [("decided alike", _change(figures["intervals"]["agreement"]))]
    if figures["distance"] is not None:
        rows.append(("distance, median difference", _share(figures["distance"])))
    if maps := figures["maps"]:
        rows.append((f"heat maps of {counted(maps['images'], 'image')}, correlation", f"{maps['mean']:.2f}"))
    levels = figures["levels"]
    rows.append(
        (
            f"other levels of optimisation, {counted(levels['images'], 'image')} decided alike",
            _share(levels["agreement"]),
        )
    )
    return Grid(("", "found"), rows)


def _kept(figures: Mapping[str, Any], precision: str) -> Grid:
    compared = figures["comparison"]
    name = compared["metric"].upper() if compared["metric"] == "auc" else compared["metric"]
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            _number(compared["second"]["value"]),
            _number(compared["first"]["value"]),
            _change(compared["difference"]),
        ),
        ("accuracy", *map(_number, figures["accuracy"]), _change(compared["accuracy_difference"])),
    ]
    for name, key in (("refused as foreign", "refused_share"), ("sets that hold the truth", "coverage")):
        before, after = figures[key]
        if before is not None and after is not None:
            found = map(_change, figures["intervals"][key])
            rows.append((name, *found, f"{(after - before) * 100:+.1f} points"))
    size = figures["size_mb"]
    rows.append(("size in MB", f"{size[0]:.1f}", f"{size[1]:.1f}", f"{size[0] / size[1]:.1f} times smaller"))
    for batch, found in figures["latency_ms"].items():
        ratio = f"{found['float32'] / found[precision]:.1f} times the speed"
        label = f"CPU ms for an image, {batch.replace('batch_', 'batch ')}, one thread"
        rows.append((label, f"{found['float32']:.2f}", f"{found[precision]:.2f}", ratio))
    return Grid(("", "float32", precision, "difference"), rows)


def _change(found: Mapping[str, float | None]) -> Cell:
    return estimate(dict(found)) or "n/a"


def _number(value: float | None) -> str:
    return "n/a" if value is None or isnan(value) else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"

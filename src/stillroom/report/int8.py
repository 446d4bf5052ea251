"""What the pages say of the int8 file: what it keeps of the float32 one, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillroom.report.numbers import estimate
from stillroom.report.section import Section
from stillroom.report.tables import Cell, Grid

_TITLE = "In eight-bit integers"


def section_of(figures: Mapping[str, Any]) -> Section:
    """The section of the part ``int8`` of metrics.json."""
    text = [_verdict(figures)]
    if not figures["images"]:
        return Section("int8", _TITLE, tuple(text))
    if figures["taught"]:
        text.append(
            "Rounding alone changed too much on validation, so the network was taught for a short while to bear it."
        )
    left, layers = figures["left_float"], figures["layers"]
    if left:
        stay = "1 stays" if len(left) == 1 else f"{len(left)} stay"
        text.append(f"Of {layers} layers {stay} float32, with what follows at once: {'; '.join(left)}.")
    else:
        text.append(f"All {layers} layers between pixels and features are computed in integers.")
    text.append(
        "Layers were chosen on validation images, where temperature, sets of classes and the limit for foreign images were"
        " fitted again, to the int8 file's own answers. Every figure below is of the test images, shown to both files."
    )
    text += figures["downgraded"] if not figures["refused"] else []
    return Section("int8", _TITLE, tuple(text), (("What the int8 file keeps", _kept(figures)),))


def _verdict(figures: Mapping[str, Any]) -> str:
    if figures["refused"]:
        return f"No int8 file is handed over. {' '.join(figures['refused'])}"
    smaller = figures["size_mb"][0] / figures["size_mb"][1]
    said = f"student.int8.onnx answers like student.onnx and is {smaller:.1f} times smaller"
    ratios = {
        name.replace("batch_", ""): found["float32"] / found["int8"] for name, found in figures["latency_ms"].items()
    }
    if not ratios:
        return f"{said}."
    faster = " and ".join(f"{ratio:.1f} times (batch {batch})" for batch, ratio in ratios.items())
    slow = "" if min(ratios.values()) > 1 else ": this machine's CPU gains nothing by it"
    return f"{said}; its speed on one thread is {faster} that of student.onnx{slow}."


def _kept(figures: Mapping[str, Any]) -> Grid:
    compared = figures["comparison"]
    name = compared["metric"].upper() if compared["metric"] == "auc" else compared["metric"]
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            _number(compared["second"]["value"]),
            _number(compared["first"]["value"]),
            _change(compared["difference"]),
        ),
        ("accuracy", "", "", _change(compared["accuracy_difference"])),
        ("decided alike", "", "", _share(figures["agreement"])),
    ]
    before, after = figures["refused_share"]
    if before is not None:
        rows.append(("refused as foreign", _share(before), _share(after), f"{(after - before) * 100:+.1f} points"))
        rows.append(("distance, median difference", "", "", _share(figures["distance"])))
    before, after = figures["coverage"]
    if before is not None:
        rows.append(
            ("sets that hold the truth", _share(before), _share(after), f"{(after - before) * 100:+.1f} points")
        )
    if figures["maps"]:
        maps = figures["maps"]
        rows.append((f"heat maps of {maps['images']} images, correlation", "", "", f"{maps['mean']:.2f}"))
    rows.append(("other levels of optimisation, decided alike", "", "", _share(figures["levels"]["agreement"])))
    size = figures["size_mb"]
    rows.append(("size in MB", f"{size[0]:.1f}", f"{size[1]:.1f}", f"{size[0] / size[1]:.1f} times smaller"))
    for batch, found in figures["latency_ms"].items():
        ratio = f"{found['float32'] / found['int8']:.1f} times the speed"
        label = f"CPU ms for an image, {batch.replace('batch_', 'batch ')}, one thread"
        rows.append((label, f"{found['float32']:.2f}", f"{found['int8']:.2f}", ratio))
    return Grid(("", "float32", "int8", "difference"), rows)


def _change(found: Mapping[str, float | None]) -> Cell:
    return estimate(dict(found)) or "n/a"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"

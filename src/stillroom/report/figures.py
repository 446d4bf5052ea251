"""Drawings of the report, one panel each, as inline SVG.

One panel per drawing, never a grid: the page places panels beside each other where there is room and below
each other on a phone, so that their text stays readable.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from stillroom.evaluation.roles import MAJORITY, RIVALS, SIMPLEST, noun
from stillroom.report.numbers import LOWER_IS_BETTER, METRICS, estimate
from stillroom.report.record import Record, title
from stillroom.report.style import CLASS_GLYPHS, CLASS_MARKERS, colour, marker, unit_axes
from stillroom.report.svg import CLASS_COLOURS, class_colour, ink, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_EMBEDDED = 1500


def forest(record: Record, lower_is_better: bool) -> str | None:
    """Test figures with their intervals: a row per metric, a mark per network. None where there are none."""
    tests = {role: test for role, test in record.test.items() if role != MAJORITY}
    keys = [
        key
        for key in METRICS
        if (key in LOWER_IS_BETTER) == lower_is_better and any(estimate(test.get(key)) for test in tests.values())
    ]
    if not keys:
        return None
    step = 0.62 / max(len(tests), 2)

    def paint(axes: Axes) -> None:
        for row, key in enumerate(keys):
            if row % 2:
                axes.axhspan(row - 0.5, row + 0.5, color=ink("rule"), alpha=0.25, zorder=0)
            for number, (role, test) in enumerate(tests.items()):
                figure = estimate(test.get(key))
                if figure is None:
                    continue
                y = row + (number - (len(tests) - 1) / 2) * step
                axes.plot(figure.ends, [y, y], color=colour(role), solid_capstyle="butt")
                axes.plot(figure.value, y, marker(role), color=colour(role), markersize=5.5)
        axes.set_yticks(range(len(keys)), [METRICS[key] for key in keys])
        axes.set_ylim(len(keys) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("lower is better" if lower_is_better else "higher is better")

    name = "forest-errors" if lower_is_better else "forest"
    listed = ", ".join(METRICS[key] for key in keys)
    label = f"Test figures with 95 % intervals for {', '.join(map(noun, tests))}: {listed}. The table above has the numbers."
    return render(name, label, (460, 58 + (15 if len(tests) < 4 else 11) * len(keys) * max(len(tests), 2)), paint)


def differences(record: Record) -> str | None:
    """Student minus each other network with intervals, zero and the non-inferiority margin marked."""
    rows = []
    for other in ("teacher", *(rival for rival in RIVALS if rival != MAJORITY)):
        comparison = record.comparison(other)
        if comparison and (figure := estimate(comparison.get("difference"))):
            rows.append((other, figure, comparison.get("margin")))
    if not rows:
        return None

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=ink("ink"), linewidth=1)
        for row, (other, figure, margin) in enumerate(rows):
            axes.plot(figure.ends, [row, row], color=colour(other), linewidth=2.4)
            axes.plot(figure.value, row, marker(other), color=colour(other), markersize=8)
            if other == "teacher" and margin:
                axes.plot([-margin] * 2, [row - 0.42, row + 0.42], color=ink("bad"), linestyle=(0, (3, 2)))
                place: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "top"}
                axes.annotate("margin", (-margin, row - 0.42), (-4, 0), color=ink("bad"), **place)
        reach = 1.15 * max(max(*map(abs, f.ends), 1.7 * (m or 0), 1e-3) for _, f, m in rows)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [fill(f"student − {noun(other)}", 24) for other, _, _ in rows])
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("← student worse · student better →")

    label = "; ".join(f"student minus {noun(other)}: {figure.text(signed=True)}" for other, figure, _ in rows)
    return render("differences", f"Paired differences. {label}.", (358, 70 + 48 * len(rows)), paint)


def reliability(record: Record) -> Iterator[tuple[str, str]]:
    """Pairs of heading and drawing: stated confidence against outcome, before and after the temperature."""
    for role, calibration in record.calibration.items():
        if role in SIMPLEST:
            continue  # the table has their figures
        for when, key in (("before", "bins_before"), ("after", "bins")):
            filled = [item for item in calibration.get(key) or [] if item.get("count")]
            if filled:
                heading = f"{title(role)}, {when} temperature"
                yield heading, _reliability(f"reliability-{role}-{when}", heading, role, filled)


def _reliability(name: str, heading: str, role: str, bins: list[dict[str, Any]]) -> str:
    most = max(item["count"] for item in bins)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=ink("muted"), linewidth=0.9, linestyle=":")
        for item in bins:
            # Counts as bars along the bottom, the fullest bin a fifth of the panel high.
            axes.bar(
                (item["low"] + item["high"]) / 2, 0.2 * item["count"] / most,
                width=0.86 * (item["high"] - item["low"]), color=ink("muted"), alpha=0.35,
            )  # fmt: skip
            if item.get("band_low") is not None:
                axes.bar(
                    item["confidence"], item["band_high"] - item["band_low"], bottom=item["band_low"],
                    width=0.86 * (item["high"] - item["low"]), color=colour(role), alpha=0.18,
                )  # fmt: skip
        x, y = [item["confidence"] for item in bins], [item["accuracy"] for item in bins]
        axes.plot(x, y, marker(role), color=colour(role), markersize=5.5, linestyle="-", linewidth=1.2)
        fullest = max(bins, key=lambda item: item["count"])
        edge, side = (fullest["low"], "left") if fullest["low"] < 0.5 else (fullest["high"], "right")
        axes.text(edge, 0.21, f"{fullest['count']:,}", ha=side, fontsize=9, color=ink("muted"))
        unit_axes(axes, "stated confidence", "share that came true")

    text = "; ".join(f"{b['confidence']:.2f} stated, {b['accuracy']:.2f} true, {b['count']} cases" for b in bins)
    return render(name, f"Reliability diagram. {heading}: {text}.", (280, 265), paint)


def features(record: Record) -> tuple[list[tuple[str, str]], list[dict[str, str]]]:
    """t-SNE maps of the networks' pooled features, and the legend of the classes in them.

    Returns:
        Pairs of heading and drawing; legend entries of ``name``, ``glyph`` and ``colour`` (a CSS variable's name).
    """
    index = record.features.get("index")
    if index is None or record.predictions is None or len(index) < 8:
        return [], []
    keep = np.arange(len(index))
    if len(keep) > MAX_EMBEDDED:
        keep = np.sort(np.random.default_rng(0).permutation(len(index))[:MAX_EMBEDDED])
    strata = record.task.stratum(record.predictions.targets[index[keep]])
    names = [*record.task.classes, "no label"]
    present = [int(k) for k in np.unique(strata)]
    drawings = []
    for role in ("student", "teacher"):
        if role not in record.features:
            continue
        places = _embed(record.features[role][keep])

        def paint(axes: Axes, places: np.ndarray = places) -> None:
            for k in present:
                x, y = places[strata == k].T
                mark = CLASS_MARKERS[k % len(CLASS_MARKERS)]
                axes.plot(x, y, mark, color=class_colour(k), markersize=3.4, markeredgewidth=0, alpha=0.8)
            axes.set_aspect("equal", adjustable="datalim")
            axes.set_axis_off()

        label = f"t-SNE map of the {role}'s features of {len(keep)} test images, coloured by class."
        drawings.append((f"{title(role)}'s features", render(f"tsne-{role}", label, (400, 360), paint)))
    legend = [
        {
            "name": names[k],
            "glyph": CLASS_GLYPHS[k % len(CLASS_GLYPHS)],
            "colour": f"class-{k % CLASS_COLOURS}",
        }
        for k in present
    ]
    return drawings, legend


def _embed(features: np.ndarray) -> np.ndarray:
    """``[M, D]`` features to ``[M, 2]`` places: 50 principal components, then t-SNE, always the same."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    features = np.nan_to_num(features.astype(np.float64))
    count = min(50, len(features) - 1, features.shape[1])
    reduced = PCA(count, random_state=0).fit_transform(features)
    start = 1e-4 * reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12)
    perplexity = min(30.0, (len(features) - 1) / 3)
    # Threads would add up in another order each time, and the map would differ from run to run.
    with threadpool_limits(1):
        return TSNE(2, perplexity=perplexity, init=start, random_state=0).fit_transform(reduced)


def size_and_figure(record: Record) -> str | None:
    """The networks' sizes against their selection metric with its interval; None unless two can be placed."""
    metric = record.task.selection_metric
    places = []
    for role, test in record.test.items():
        size = record.efficiency.get("student" if role == "control" else role, {}).get("parameters")
        figure = estimate(test.get(metric))
        if size and figure:
            places.append((role, float(size) / 1e6, figure))
    if len(places) < 2:
        return None

    def paint(axes: Axes) -> None:
        for number, (role, size, figure) in enumerate(places):
            # Student and control are equally large: a hair's breadth apart so that both intervals show.
            x = size * (1.07 if role == "control" else 1.0)
            axes.plot([x, x], figure.ends, color=colour(role))
            axes.plot(x, figure.value, marker(role), color=colour(role), markersize=8, label=str(number))
        axes.set_xscale("log")
        low, high = min(size for _, size, _ in places), max(size for _, size, _ in places)
        axes.set_xlim(low / 1.8, high * 1.8)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.tick_params(axis="x", which="minor", labelbottom=False)
        axes.set_xlabel("million parameters (log scale)")
        axes.set_ylabel(METRICS[metric])

    label = "; ".join(
        f"{role}: {size:.2f} million parameters, {METRICS[metric]} {f.value:.3f}" for role, size, f in places
    )
    return render("size", f"Size against {METRICS[metric]}. {label}.", (360, 260), paint)

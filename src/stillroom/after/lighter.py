"""A finished run's network in eight-bit integers, or in half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillroom.errors import UsageError
from stillroom.files.atomic import write_json
from stillroom.run.claims import alone_in
from stillroom.run.folder import Run

Made = tuple[Path | None, dict[str, Any]]
"""The file, None where it was refused, and its part of metrics.json, whose ``refused`` says why."""


def export_int8(run: Run, *, source: str | Path | None = None, show_progress: bool = True) -> Made:
    """Write student.int8.onnx into a finished run's folder, if it keeps the answers; metrics.json and the pages gain it.

    Args:
        run: a finished run.
        source: where its images are now, if they were moved.
        show_progress: show bars.

    Returns:
        The file, None where it was refused, and the part ``int8`` of metrics.json, whose ``refused`` says why.

    Raises:
        UsageError: the run has not finished, its images or its student.onnx are not there any more, or it hands over an
            ensemble or a network without layers to round.
        RunError: the data changed since; the message says which.
    """
    from stillroom.run.int8 import make_int8

    return _exported(run, "int8", make_int8, source, show_progress)


def export_fp16(run: Run, *, source: str | Path | None = None, show_progress: bool = True) -> Made:
    """Write student.fp16.onnx, for GPUs and NPUs; takes, gives and raises what :func:`export_int8` does."""
    from stillroom.run.fp16 import make_fp16

    return _exported(run, "fp16", make_fp16, source, show_progress)


def _exported(
    run: Run, precision: str, make: Callable[..., Made], source: str | Path | None, show_progress: bool
) -> Made:
    from stillroom.deployment.predictor import MODEL_FILE, Predictor
    from stillroom.report.lighter import section_of
    from stillroom.run.begun_with import same_data
    from stillroom.run.int8 import Handed
    from stillroom.run.pipeline import write_pages
    from stillroom.run.stages.explanation import exported_layer
    from stillroom.run.stages.uncertainty import DENSITY_FILE, read_density
    from stillroom.run.workbench import Workbench

    with alone_in(run.path):
        network, role, density = run.student(), run.exported_role, run.path / DENSITY_FILE
        if not (run.path / MODEL_FILE).is_file():
            raise UsageError(
                f"{run.path} holds no {MODEL_FILE} to compare with: run `stillroom export {run.path}` first."
            )
        noted = Predictor.load(run.path).metadata
        run, dataset = same_data(run, source=source, show_progress=show_progress)
        bench = Workbench(run, dataset, show_progress=show_progress)
        network.to(bench.device)
        image = bench.seen_by(network).images.batch(dataset.table.indices("val")[:1])
        layer = exported_layer(network, role, run.settings.evaluation.explain_layer, image) if noted.layer else None
        known = read_density(density) if noted.foreign else None
        path, figures = make(bench, Handed(network, role, noted, layer, known, run.path / MODEL_FILE))
        metrics = run.metrics
        others = [section for section in metrics.get("sections", []) if section["key"] != precision]
        sections = [*others, section_of(figures, precision).to_dict()]
        write_json(run.path / "metrics.json", metrics | {precision: figures, "sections": sections})
        write_pages(run)
    return path, figures

"""A finished run's network in eight-bit integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillroom.files.atomic import write_json
from stillroom.run.claims import alone_in
from stillroom.run.folder import Run


def export_int8(
    run: Run, *, source: str | Path | None = None, show_progress: bool = True
) -> tuple[Path | None, dict[str, Any]]:
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
    from stillroom.deployment.predictor import Predictor
    from stillroom.report.int8 import section_of
    from stillroom.run.begun_with import same_data
    from stillroom.run.int8 import Handed, make_int8
    from stillroom.run.pipeline import write_pages
    from stillroom.run.stages.explanation import exported_layer
    from stillroom.run.stages.uncertainty import DENSITY_FILE, read_density
    from stillroom.run.workbench import Workbench

    with alone_in(run.path):
        network, role, density = run.student(), run.exported_role, run.path / DENSITY_FILE
        noted = Predictor.load(run.path).metadata
        run, dataset = same_data(run, source=source, show_progress=show_progress)
        bench = Workbench(run, dataset, show_progress=show_progress)
        network.to(bench.device)
        image = bench.seen_by(network).images.batch(dataset.table.indices("val")[:1])
        layer = exported_layer(network, role, run.settings.evaluation.explain_layer, image) if noted.layer else None
        known = read_density(density) if noted.foreign else None
        path, figures = make_int8(bench, Handed(network, role, noted, layer, known, run.path / "student.onnx"))
        metrics = run.metrics
        others = [section for section in metrics.get("sections", []) if section["key"] != "int8"]
        write_json(
            run.path / "metrics.json", metrics | {"int8": figures, "sections": [*others, section_of(figures).to_dict()]}
        )
        write_pages(run)
    return path, figures
